/**
 * The attachments as the server knows them, kept fresh by events and a poll.
 */
import { Event } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';
import { IAttachRequest, LakeApi, asFault } from './api';
import { AttachmentState, IAttachment, IFailures, IFault, moving } from './types';

/** The schema of the events about attachments. */
export const ATTACHMENT_SCHEMA = 'https://dmsp.example/schemas/attachment/v1';

/** The schema of the events about listings. */
export const LISTING_SCHEMA = 'https://dmsp.example/schemas/listing/v1';

/** Milliseconds between two looks while something moves and no event has come lately. */
const FAST = 1000;

/** Milliseconds between two looks while something moves and events come. */
const GUARDED = 5000;

/** Milliseconds after which events count as absent. */
const SILENCE = 3000;

/** Milliseconds in which events about one attachment are answered by one request. */
const GATHER = 100;

/** A change of state that a user may want to hear of. */
export interface ITransition {
  attachment: IAttachment;
  from: AttachmentState | null;
}

/** What the server's streams look like from here: `app.serviceManager.events.stream`. */
export interface IEventStream {
  connect(slot: (sender: unknown, emission: Event.Emission) => void): boolean;
  disconnect(slot: (sender: unknown, emission: Event.Emission) => void): boolean;
}

/**
 * The list of attachments.
 *
 * Events can be lost, doubled or forged: each is only a reason to ask. An answer that is older than what is known (by
 * `seq`, within one `epoch` of the server) is dropped.
 */
export class AttachmentsModel implements IDisposable {
  private _byId = new Map<string, IAttachment>();
  private _epoch: string | number | null = null;
  private _error: IFault | null = null;
  private _loaded = false;
  private _disposed = false;
  private _lastEvent = 0;
  private _interval = 15000;
  private _asked = new Map<string, ReturnType<typeof setTimeout>>();
  private _changed = new Signal<this, void>(this);
  private _transition = new Signal<this, ITransition>(this);
  private _poll: Poll;

  constructor(
    private _api: LakeApi,
    private _events: IEventStream | null = null
  ) {
    this._poll = new Poll({
      name: 'jupyterhub-dmsp:attachments',
      auto: false,
      factory: () => this._fetch(),
      frequency: { interval: this._interval, backoff: true, max: 60000 },
      standby: 'when-hidden'
    });
    this._events?.connect(this._onEvent);
  }

  /** Emitted when an attachment, the list or the error has changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Emitted when an attachment reaches another state; not for what the first answer brings. */
  get transition(): ISignal<this, ITransition> {
    return this._transition;
  }

  /** The attachments, those that need attention first, then the newest. */
  get items(): IAttachment[] {
    const rank = (a: IAttachment) =>
      moving(a) ? 0 : ['stuck', 'failed'].includes(a.state) ? 1 : 2;
    return [...this._byId.values()]
      .filter(a => a.state !== 'released')
      .sort((a, b) => rank(a) - rank(b) || a.did.localeCompare(b.did));
  }

  /** Whether the first answer has come. */
  get loaded(): boolean {
    return this._loaded;
  }

  /** Why the list cannot be read now. */
  get error(): IFault | null {
    return this._error;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    this._disposed = true;
    this._events?.disconnect(this._onEvent);
    this._poll.dispose();
    this._asked.forEach(timer => clearTimeout(timer));
    Signal.clearData(this);
  }

  /** The slow interval in milliseconds. */
  set interval(value: number) {
    this._interval = value;
    this._pace();
  }

  get(id: string): IAttachment | undefined {
    return this._byId.get(id);
  }

  /** The attachment of a DID that is not released. */
  ofDid(did: string): IAttachment | undefined {
    return this.items.find(item => item.did === did);
  }

  /** Begin: the first look now. */
  async start(): Promise<void> {
    await this._poll.start();
  }

  /** Look now. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
  }

  /** Ask for a DID; its state follows by events. */
  async attach(request: IAttachRequest): Promise<IAttachment> {
    const attachment = await this._api.attach(request);
    this._take(attachment);
    this._settled();
    return this._byId.get(attachment.id) ?? attachment;
  }

  /** Cancel or release. */
  async release(id: string): Promise<void> {
    await this._api.release(id);
    this._byId.delete(id);
    this._settled();
  }

  /** Try again what is stuck or has failed. */
  async retry(id: string): Promise<void> {
    this._take(await this._api.retry(id));
    this._settled();
  }

  /** Which of its files do not arrive, and why; the lake is asked. */
  failures(id: string): Promise<IFailures> {
    return this._api.failures(id);
  }

  /** Keep it for `lifetime` seconds from now. */
  async extend(id: string, lifetime: number): Promise<void> {
    this._take(await this._api.extend(id, lifetime));
    this._settled();
  }

  private _onEvent = (_: unknown, emission: Event.Emission): void => {
    // an emission's declared type leaves no room for its data
    const event = emission as unknown as { schema_id: string; id?: string; seq?: number };
    if (event.schema_id !== ATTACHMENT_SCHEMA || !event.id || this._disposed) {
      return;
    }
    this._lastEvent = Date.now();
    const known = this._byId.get(event.id);
    const epoch = (event as { epoch?: string | number }).epoch;
    if (known && epoch === this._epoch && (event.seq ?? Infinity) <= known.seq) {
      return;
    }
    this._ask(event.id);
  };

  /** Ask about one attachment, once for all events of the next moment. */
  private _ask(id: string): void {
    if (this._asked.has(id)) {
      return;
    }
    const timer = setTimeout(() => {
      this._asked.delete(id);
      this._api.attachment(id).then(
        attachment => {
          this._take(attachment);
          this._settled();
        },
        () => this.refresh().catch(() => undefined) // gone or unreachable: the list will tell
      );
    }, GATHER);
    this._asked.set(id, timer);
  }

  private async _fetch(): Promise<void> {
    try {
      const answer = await this._api.attachments();
      if (answer.epoch !== this._epoch) {
        // the server has started again: its numbers begin anew
        this._byId.forEach(item => (item.seq = -1));
        this._epoch = answer.epoch;
      }
      const ids = new Set(answer.attachments.map(item => item.id));
      answer.attachments.forEach(item => this._take(item));
      [...this._byId.keys()].filter(id => !ids.has(id)).forEach(id => this._byId.delete(id));
      this._error = null;
      this._loaded = true;
      this._settled();
    } catch (error) {
      this._error = asFault(error);
      this._changed.emit();
      throw error; // the poll backs off
    }
  }

  private _take(next: IAttachment): void {
    const known = this._byId.get(next.id);
    if (known && next.seq < known.seq) {
      return;
    }
    this._byId.set(next.id, next);
    if (known?.state !== next.state && (this._loaded || known)) {
      this._transition.emit({ attachment: next, from: known?.state ?? null });
    }
  }

  private _settled(): void {
    if (!this._disposed) {
      this._pace();
      this._changed.emit();
    }
  }

  private _pace(): void {
    const busy = this.items.some(moving);
    const silent = Date.now() - this._lastEvent > SILENCE;
    const interval = busy ? (silent ? FAST : GUARDED) : this._interval;
    if (interval !== this._poll.frequency.interval) {
      this._poll.frequency = { interval, backoff: true, max: Math.max(60000, interval) };
    }
    if (busy && !this._poll.isDisposed && this._poll.state.interval > interval) {
      void this._poll.schedule({ interval, phase: 'refreshed' }).catch(() => undefined);
    }
  }
}
