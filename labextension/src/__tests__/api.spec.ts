/**
 * @jest-environment node
 */
import { ServerConnection } from '@jupyterlab/services';
import { createServer, Server } from 'http';
import { AddressInfo } from 'net';
import { ApiError, LakeApi, asFault } from '../model/api';

/** A real server on a free port, which answers with what it is told to. */
class Answers {
  status = 200;
  body = '';
  /** Statuses of the next answers, before `status` counts; 0 cuts the connection. */
  first: number[] = [];
  asked: { method: string; url: URL; body: string }[] = [];
  private _server: Server;

  constructor() {
    this._server = createServer((request, response) => {
      let body = '';
      request.on('data', chunk => (body += chunk));
      request.on('end', () => {
        const url = new URL(request.url ?? '', 'http://127.0.0.1');
        this.asked.push({ method: request.method ?? '', url, body });
        const early = this.first.shift();
        if (early === 0) {
          request.socket.destroy();
        } else {
          response.writeHead(early ?? this.status);
          response.end(early ? 'One moment' : this.body);
        }
      });
    });
  }

  async start(): Promise<string> {
    await new Promise<void>(resolve => this._server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this._server.address() as AddressInfo).port}/user/a/`;
  }

  async stop(): Promise<void> {
    this._server.closeAllConnections();
    await new Promise(resolve => this._server.close(resolve));
  }
}

async function failure(promise: Promise<unknown>): Promise<ApiError> {
  try {
    await promise;
  } catch (error) {
    return error as ApiError;
  }
  throw new Error('did not fail');
}

describe('LakeApi', () => {
  let answers: Answers;
  let api: LakeApi;
  let baseUrl: string;

  beforeEach(async () => {
    answers = new Answers();
    baseUrl = await answers.start();
    api = new LakeApi(ServerConnection.makeSettings({ baseUrl, token: 't' }), [1, 1, 1]);
  });

  afterEach(() => answers.stop());

  it('writes a DID into the query, whatever it holds', async () => {
    answers.body = '{"rows":[],"total":0}';
    const parent = 'km3net:a/b&c="<script>"#?:x';
    await api.children({
      parent,
      offset: 0,
      limit: 200,
      sort: 'name',
      order: 'asc',
      pattern: ''
    });
    const { url } = answers.asked[0];
    expect(url.pathname).toBe('/user/a/dmsp/v1/children');
    expect(url.searchParams.get('parent')).toBe(parent);
    expect(url.searchParams.has('pattern')).toBe(false);
    expect(url.searchParams.has('refresh')).toBe(false);
  });

  it('sends what is to be attached', async () => {
    answers.status = 201;
    answers.body = '{"id":"x"}';
    expect((await api.attach({ did: 'a:b', variable: 'v', lifetime: 60 })).id).toBe('x');
    expect(answers.asked[0].method).toBe('POST');
    expect(JSON.parse(answers.asked[0].body)).toEqual({ did: 'a:b', variable: 'v', lifetime: 60 });
  });

  it('keeps sentence, action and request of an error', async () => {
    const error = { code: 'quota', message: 'Too large.', action: 'release', request_id: 'r' };
    answers.status = 413;
    answers.body = JSON.stringify({ error });
    const failed = await failure(api.attach({ did: 'a:b' }));
    const { code, message, action, request_id, status } = failed;
    expect({ code, message, action, request_id, status }).toEqual({ ...error, status: 413 });
    expect(asFault(failed)).toBe(failed);
  });

  it.each([
    [401, 'login'],
    [403, 'login'],
    [404, 'contact'],
    [502, 'retry']
  ])('has a way out of a foreign %s: %s', async (status, action) => {
    answers.status = status;
    answers.body = '<html>';
    const error = await failure(api.status());
    expect(error.action).toBe(action);
    expect(error.message).toMatch(/^[A-Z].*\.$/);
  });

  it('tells that nobody answers', async () => {
    await answers.stop();
    expect((await failure(api.status())).code).toBe('unreachable');
    answers = new Answers();
    await answers.start();
  });

  it('asks for a change again while nobody answers', async () => {
    answers.first = [0, 502, 503];
    answers.status = 201;
    answers.body = '{"id":"x"}';
    expect((await api.attach({ did: 'a:b' })).id).toBe('x');
    expect(answers.asked.length).toBe(4);
  });

  it('gives up in the end, and never repeats what the server refused', async () => {
    answers.status = 503;
    expect((await failure(api.retry('x'))).status).toBe(503);
    expect(answers.asked.length).toBe(4);
    answers.body = JSON.stringify({ error: { code: 'rucio', message: 'No.', action: 'retry' } });
    expect((await failure(api.retry('x'))).code).toBe('rucio');
    expect(answers.asked.length).toBe(5);
    answers.first = [0, 0];
    await failure(api.status());
    expect(answers.asked.length).toBe(6);
  });

  it('takes a release as done whose first answer got lost', async () => {
    answers.first = [0];
    answers.status = 404;
    answers.body = JSON.stringify({ error: { code: 'missing', message: 'Gone.', action: 'none' } });
    await api.release('x');
    expect((await failure(api.release('x'))).message).toBe('Gone.');
  });

  it('reads an empty answer', async () => {
    answers.status = 204;
    await api.unbind('a b.ipynb', 'x');
    expect(answers.asked[0].url.searchParams.get('notebook')).toBe('a b.ipynb');
  });
});
