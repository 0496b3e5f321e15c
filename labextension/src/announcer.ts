/**
 * Changes of state, said to those who cannot see them and shown as notifications to those who look elsewhere.
 */
import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { AttachmentsModel, ITransition } from './model/attachments';
import { IAttachment } from './model/types';

/** What a notification's buttons do. */
export interface IAnnouncerOptions {
  attachments: AttachmentsModel;
  trans: TranslationBundle;
  /** Whether notifications are wanted. */
  enabled: () => boolean;
  show: () => void;
  retry: (attachment: IAttachment) => void;
  /** The sentence about the variables of a ready attachment, "" when there are none. */
  uses: (attachment: IAttachment) => string;
}

/** Listens to the attachments. */
export class Announcer implements IDisposable {
  private _node: HTMLElement;

  constructor(private _options: IAnnouncerOptions) {
    // in the body, not in the sidebar: a hidden sidebar would say nothing
    this._node = document.createElement('div');
    this._node.id = 'dmsp-announcer';
    this._node.className = 'jp-DMSP-hidden';
    this._node.setAttribute('role', 'status');
    document.body.appendChild(this._node);
    _options.attachments.transition.connect(this._onTransition, this);
  }

  get isDisposed(): boolean {
    return !this._node.isConnected;
  }

  dispose(): void {
    this._options.attachments.transition.disconnect(this._onTransition, this);
    this._node.remove();
  }

  /** Say a sentence to screen readers. */
  say(text: string): void {
    this._node.textContent = text;
  }

  private _onTransition(_: AttachmentsModel, change: ITransition): void {
    const { trans } = this._options;
    const { did, state } = change.attachment;
    if (state === 'ready') {
      this._ready(change.attachment);
    } else if (state === 'stuck' || state === 'failed') {
      this._failed(change.attachment);
    } else if (state === 'requested') {
      this.say(trans.__('%1 was asked for.', did));
    } else if (state === 'replicating') {
      this.say(trans.__('%1 is being copied to scratch.', did));
    }
  }

  private _ready(attachment: IAttachment): void {
    const { trans, enabled, uses, show } = this._options;
    const text = trans.__('%1 is ready. %2', attachment.did, uses(attachment)).trim();
    this.say(text);
    if (enabled()) {
      Notification.success(text, {
        autoClose: 5000,
        actions: [{ label: trans.__('Show'), callback: show, displayType: 'accent' }]
      });
    }
  }

  private _failed(attachment: IAttachment): void {
    const { trans, enabled, show, retry } = this._options;
    const reason = attachment.error?.message ?? '';
    const text =
      attachment.state === 'stuck'
        ? trans.__('%1 is stuck. %2', attachment.did, reason)
        : trans.__('%1 could not be attached. %2', attachment.did, reason);
    this.say(text);
    if (enabled()) {
      Notification.error(text, {
        autoClose: false,
        actions: [
          { label: trans.__('Retry'), callback: () => retry(attachment), displayType: 'accent' },
          { label: trans.__('Show'), callback: show }
        ]
      });
    }
  }
}
