import { Notification } from '@jupyterlab/apputils';
import { nullTranslator } from '@jupyterlab/translation';
import { ApiError, LakeApi } from '../model/api';
import { StatusModel } from '../model/status';
import { IFault, IStatus } from '../model/types';
import { LoginWatch } from '../relogin';

const trans = nullTranslator.load('jupyterhub_dmsp');
const EXPIRED: IFault = { code: 'login', message: 'Your login has expired.', action: 'login' };

class Server {
  error: IFault | null = null;
  fail: ApiError | null = null;
  looks = 0;

  async status(): Promise<IStatus> {
    this.looks += 1;
    if (this.fail) {
      throw this.fail;
    }
    return {
      token: { error: this.error },
      lake: { ok: true, name: 'lake' },
      mount: { state: 'ok' }
    } as unknown as IStatus;
  }
}

describe('LoginWatch', () => {
  let server: Server;
  let status: StatusModel;
  let watch: LoginWatch;
  let logIn: jest.Mock;
  let onBack: jest.Mock;
  let said: string[];
  const shown = () => Notification.manager.notifications.map(one => one.message);
  const look = () => status.refresh().catch(() => undefined);

  beforeEach(() => {
    jest.useFakeTimers();
    Notification.dismiss();
    server = new Server();
    status = new StatusModel(server as unknown as LakeApi);
    logIn = jest.fn();
    onBack = jest.fn();
    said = [];
    watch = new LoginWatch({ status, trans, logIn, onBack, say: text => said.push(text) });
  });

  afterEach(() => {
    watch.dispose();
    status.dispose();
    jest.useRealTimers();
  });

  it('says once that the login has ended, with a button that keeps the notification', async () => {
    server.error = EXPIRED;
    await look();
    await look();
    expect(shown()).toEqual(['Your login has expired. Your work stays as it is.']);
    const [toast] = Notification.manager.notifications;
    expect(toast.options.autoClose).toBe(false);
    const [button] = toast.options.actions ?? [];
    expect(button.label).toBe('Log in again');
    const event = new MouseEvent('click', { cancelable: true });
    button.callback(event);
    expect(logIn).toHaveBeenCalledTimes(1);
    expect(event.defaultPrevented).toBe(true);
    expect(said).toHaveLength(1);
  });

  it('looks by itself until the login is good, then goes on', async () => {
    server.error = EXPIRED;
    await look();
    await jest.advanceTimersByTimeAsync(10000);
    expect(server.looks).toBeGreaterThan(3);
    expect(onBack).not.toHaveBeenCalled();
    server.error = null;
    await jest.advanceTimersByTimeAsync(4000);
    expect(watch.waits).toBe(false);
    expect(onBack).toHaveBeenCalledTimes(1);
    expect(shown()).toEqual(['You are logged in again.']);
    const looks = server.looks;
    await jest.advanceTimersByTimeAsync(30000);
    expect(server.looks).toBe(looks);
  });

  it('asks again when the login ends again', async () => {
    for (const error of [EXPIRED, null, EXPIRED]) {
      server.error = error;
      await look();
    }
    expect(watch.waits).toBe(true);
    expect(onBack).toHaveBeenCalledTimes(1);
  });

  it('takes a server that does not answer for no news', async () => {
    server.error = EXPIRED;
    await look();
    server.fail = new ApiError('unreachable', 'Nobody answers.', 'retry', 0);
    await look();
    expect(watch.waits).toBe(true);
    expect(onBack).not.toHaveBeenCalled();
  });

  it('asks too when the server itself wants a login', async () => {
    server.fail = new ApiError('session', 'Your session has ended.', 'login', 403);
    await look();
    expect(watch.waits).toBe(true);
  });

  it('has nothing to say of other faults', async () => {
    server.error = { code: 'issuer_down', message: 'Down.', action: 'retry' };
    await look();
    expect(shown()).toEqual([]);
    watch.dispose();
    server.error = EXPIRED;
    await look();
    expect(shown()).toEqual([]);
  });
});
