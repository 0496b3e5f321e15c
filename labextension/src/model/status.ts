/**
 * The health of the lake, the scratch mount and the token.
 */
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';
import { LakeApi, asFault } from './api';
import { IFault, IStatus } from './types';

/** The last status and how it was to get it. */
export class StatusModel implements IDisposable {
  private _status: IStatus | null = null;
  private _error: IFault | null = null;
  private _changed = new Signal<this, void>(this);
  private _poll: Poll;

  constructor(private _api: LakeApi) {
    this._poll = new Poll({
      name: 'jupyterhub-dmsp:status',
      auto: false,
      factory: () => this.refresh(),
      frequency: { interval: 60000, backoff: true, max: 300000 },
      standby: 'when-hidden'
    });
  }

  /** Emitted after every look. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** The last answer, null before the first. */
  get status(): IStatus | null {
    return this._status;
  }

  /** The name of the lake, "" before it is known. */
  get lake(): string {
    return this._status?.lake.name ?? '';
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  /** Begin looking. */
  async start(): Promise<void> {
    await this._poll.start();
  }

  /** Look now. Rejects when the server does not answer. */
  async refresh(): Promise<void> {
    try {
      this._status = await this._api.status();
      this._error = null;
    } catch (error) {
      this._error = asFault(error);
      throw error;
    } finally {
      if (!this.isDisposed) {
        this._changed.emit();
      }
    }
  }

  /** What is wrong now, the gravest first, or null. */
  get fault(): IFault | null {
    const status = this._status;
    if (this._error || !status) {
      return this._error;
    }
    if (status.token.error) {
      return Private.fault(status.token.error, 'token', 'login');
    }
    if (status.lake.error || !status.lake.ok) {
      const error = status.lake.error ?? 'The data lake does not answer.';
      return Private.fault(error, 'lake', 'retry');
    }
    if (status.mount.state !== 'ok') {
      const message = 'The scratch area is not mounted: attached files cannot be read now.';
      return { code: 'mount', message, action: 'remount' };
    }
    return null;
  }
}

namespace Private {
  export function fault(error: IFault | string, code: string, action: IFault['action']): IFault {
    return typeof error === 'string' ? { code, message: error, action } : error;
  }
}
