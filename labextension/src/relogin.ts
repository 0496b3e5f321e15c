/**
 * A login that has ended: said once, with the button that cures it. Nothing in the window is touched.
 */
import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { StatusModel } from './model/status';

/** Milliseconds between two looks while a login is awaited. */
const LOOK = 3000;

/** What the watch works with. */
export interface ILoginWatchOptions {
  status: StatusModel;
  trans: TranslationBundle;
  /** Open the login in another tab. */
  logIn: () => void;
  /** Called when the login is good again: what waited for it goes on. */
  onBack: () => void;
  /** Say a sentence to screen readers. */
  say: (text: string) => void;
}

/** Listens to the status: one notification from the end of a login to the next one. */
export class LoginWatch implements IDisposable {
  private _toast = '';
  private _disposed = false;
  private _poll: Poll;

  constructor(private _options: ILoginWatchOptions) {
    // Not in standby while hidden: the login is in another tab, and this one shall be ready when it is seen again.
    this._poll = new Poll({
      name: 'jupyterhub-dmsp:login',
      auto: false,
      factory: () => _options.status.refresh(),
      frequency: { interval: LOOK, backoff: true, max: 20 * LOOK },
      standby: 'never'
    });
    _options.status.changed.connect(this._onStatus, this);
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Whether a login is awaited. */
  get waits(): boolean {
    return this._toast !== '';
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      this._options.status.changed.disconnect(this._onStatus, this);
      this._poll.dispose();
      this._dismiss();
    }
  }

  private _onStatus(): void {
    const fault = this._options.status.fault;
    if (fault?.action === 'login') {
      if (!this.waits) {
        this._ask();
      }
    } else if (this.waits && fault?.code !== 'unreachable') {
      this._back();
    }
  }

  private _ask(): void {
    const { trans, logIn, say } = this._options;
    const text = trans.__('Your login has expired. Your work stays as it is.');
    this._toast = Notification.warning(text, {
      autoClose: false,
      actions: [
        {
          label: trans.__('Log in again'),
          caption: trans.__('Opens the login in another tab'),
          displayType: 'accent',
          callback: event => {
            // The notification stays until the login is good: a tab is easily closed too early.
            event.preventDefault();
            logIn();
          }
        }
      ]
    });
    say(text);
    void this._poll.start();
  }

  private _back(): void {
    const { trans, onBack, say } = this._options;
    void this._poll.stop();
    this._dismiss();
    const text = trans.__('You are logged in again.');
    Notification.success(text, { autoClose: 5000 });
    say(text);
    onBack();
  }

  private _dismiss(): void {
    if (this._toast) {
      Notification.dismiss(this._toast);
      this._toast = '';
    }
  }
}
