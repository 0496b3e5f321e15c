import { Event } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';
import { ApiError, LakeApi } from '../model/api';
import { ATTACHMENT_SCHEMA, AttachmentsModel, ITransition } from '../model/attachments';
import { IAttachment } from '../model/types';
import { summary } from '../panels/statusbar';
import { attachment } from './fixtures';

class Server {
  list: IAttachment[] = [];
  epoch = '1';
  calls: string[] = [];
  fail: ApiError | null = null;

  async attachments() {
    this.calls.push('list');
    if (this.fail) {
      throw this.fail;
    }
    return { attachments: this.list, epoch: this.epoch };
  }
  async attachment(id: string) {
    this.calls.push(id);
    return this.list.find(item => item.id === id) as IAttachment;
  }
  async attach() {
    return this.list[0];
  }
  async release() {
    this.list = [];
  }
}

describe('AttachmentsModel', () => {
  let server: Server;
  let model: AttachmentsModel;
  let heard: string[];
  const sender = {};
  const stream = new Signal<object, Event.Emission>(sender);
  const event = (data: object) =>
    stream.emit({ schema_id: ATTACHMENT_SCHEMA, ...data } as unknown as Event.Emission);

  beforeEach(async () => {
    jest.useFakeTimers();
    server = new Server();
    server.list = [attachment()];
    model = new AttachmentsModel(server as unknown as LakeApi, stream);
    heard = [];
    model.transition.connect((_: AttachmentsModel, change: ITransition) =>
      heard.push(`${change.from}>${change.attachment.state}`)
    );
    void model.start();
    await jest.advanceTimersByTimeAsync(10);
    server.calls = [];
  });

  afterEach(() => {
    model.dispose();
    jest.useRealTimers();
  });

  it('is silent about what was there', () => {
    expect(model.loaded).toBe(true);
    expect(model.items).toHaveLength(1);
    expect(heard).toEqual([]);
  });

  it('takes an event as a reason to ask, once for many', async () => {
    server.list = [attachment({ state: 'ready', seq: 9 })];
    for (let seq = 2; seq < 9; seq++) {
      event({ id: 'x', seq, epoch: '1', state: 'failed' });
    }
    await jest.advanceTimersByTimeAsync(150);
    expect(server.calls).toEqual(['x']);
    expect(heard).toEqual(['replicating>ready']);
  });

  it('ignores old events and old answers', async () => {
    server.list = [attachment({ seq: 5 })];
    await model.refresh();
    await jest.advanceTimersByTimeAsync(10);
    server.calls = [];
    event({ id: 'x', seq: 4, epoch: '1', state: 'ready' });
    await jest.advanceTimersByTimeAsync(150);
    expect(server.calls).toEqual([]);
    server.list = [attachment({ seq: 3, state: 'ready' })];
    await model.refresh();
    await jest.advanceTimersByTimeAsync(10);
    expect(model.get('x')?.state).toBe('replicating');
  });

  it('believes a server that has started again', async () => {
    server.epoch = '2';
    server.list = [attachment({ seq: 0, state: 'ready' })];
    await model.refresh();
    await jest.advanceTimersByTimeAsync(10);
    expect(model.get('x')?.state).toBe('ready');
  });

  it('looks every second while something moves and no event comes', async () => {
    await jest.advanceTimersByTimeAsync(5000);
    expect(server.calls.length).toBeGreaterThanOrEqual(4);
    server.list = [attachment({ seq: 2, state: 'ready' })];
    await jest.advanceTimersByTimeAsync(2000);
    server.calls = [];
    await jest.advanceTimersByTimeAsync(14000);
    expect(server.calls.length).toBeLessThanOrEqual(1);
  });

  it('is quick again when a dataset is attached', async () => {
    server.list = [attachment({ seq: 2, state: 'ready' })];
    await jest.advanceTimersByTimeAsync(3000);
    server.list = [attachment({ id: 'y', did: 'a:c', state: 'requested' })];
    await model.attach({ did: 'a:c' });
    expect(heard.pop()).toBe('null>requested');
    server.calls = [];
    await jest.advanceTimersByTimeAsync(3500);
    expect(server.calls.length).toBeGreaterThanOrEqual(2);
  });

  it('tells why the list cannot be read and keeps what it knew', async () => {
    server.fail = new ApiError('unreachable', 'The Jupyter server cannot be reached.', 'retry', 0);
    await model.refresh();
    await jest.advanceTimersByTimeAsync(10);
    expect(model.error?.code).toBe('unreachable');
    expect(model.items).toHaveLength(1);
    server.fail = null;
    await model.refresh();
    await jest.advanceTimersByTimeAsync(10);
    expect(model.error).toBeNull();
  });

  it('forgets what was released', async () => {
    await model.release('x');
    expect(model.items).toEqual([]);
  });
});

describe('summary', () => {
  it('adds up what moves', () => {
    expect(summary([attachment({ state: 'ready' })])).toBeNull();
    const two = [
      attachment({ bytes_ready: 50 }),
      attachment({ bytes_total: 300, bytes_ready: 50 })
    ];
    expect(summary(two)).toEqual({ count: 2, percent: 25 });
  });
});
