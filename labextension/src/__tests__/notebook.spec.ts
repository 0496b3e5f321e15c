import { NotebookModel } from '@jupyterlab/notebook';
import { Kernel } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';
import { IProvenance } from '../model/types';
import { KernelGone, runSilently } from '../notebook/kernel';
import { languageOf } from '../notebook/languages';
import { completeAttachment, readAttachments, writeAttachment } from '../notebook/metadata';

const entry: IProvenance = {
  did: 'a:b',
  variable: 'events',
  lake: 'demo',
  files: 2,
  bytes: 10,
  digest: 'd',
  attached_at: '2026-01-01T00:00:00.000Z'
};

describe('metadata', () => {
  it('writes beside what others wrote, one entry a variable', () => {
    const model = new NotebookModel();
    model.setMetadata('dmsp', { other: 1 });
    writeAttachment(model, entry);
    writeAttachment(model, { ...entry, did: 'a:c' });
    writeAttachment(model, { ...entry, variable: 'more' });
    expect(model.getMetadata('dmsp').other).toBe(1);
    expect(readAttachments(model).map(e => [e.variable, e.did])).toEqual([
      ['events', 'a:c'],
      ['more', 'a:b']
    ]);
  });

  it('leaves the live object alone', () => {
    const model = new NotebookModel();
    writeAttachment(model, entry);
    const live = JSON.stringify(model.getMetadata('dmsp'));
    readAttachments(model)[0].did = 'changed:here';
    expect(JSON.stringify(model.getMetadata('dmsp'))).toBe(live);
  });

  it('does not touch a notebook that says so already', () => {
    const model = new NotebookModel();
    writeAttachment(model, entry);
    model.dirty = false;
    completeAttachment(model, { ...entry, attached_at: 'later' });
    expect(model.dirty).toBe(false);
    completeAttachment(model, { ...entry, files: 3, attached_at: 'later' });
    expect(model.dirty).toBe(true);
    expect(readAttachments(model)[0]).toEqual({ ...entry, files: 3 });
  });

  it.each([
    [undefined],
    [{ attachments: 'x' }],
    [{ attachments: [null, 1, {}, { did: 'a:b' }, { did: 'nocolon', variable: 'x' }] }],
    [{ attachments: [{ did: 'a:b', variable: "x'] ; import os #" }] }]
  ])('believes nothing strange: %j', value => {
    const model = new NotebookModel();
    model.setMetadata('dmsp', value);
    expect(readAttachments(model)).toEqual([]);
  });
});

/** A kernel that answers executions from a list. */
class FakeKernel {
  status: Kernel.Status = 'idle';
  isDisposed = false;
  supportsSubshells = false;
  language = 'python';
  statusChanged = new Signal<this, Kernel.Status>(this);
  disposed = new Signal<this, void>(this);
  iopubMessage = new Signal<this, unknown>(this);
  asked: { code: string; silent: boolean; store_history: boolean; stop_on_error: boolean }[] = [];
  subshells: string[] = [];
  subshellId: string | null = null;

  constructor(public answers: (object | Error)[]) {}

  get connection(): Kernel.IKernelConnection {
    return this as unknown as Kernel.IKernelConnection;
  }

  get info() {
    return Promise.resolve({ language_info: { name: this.language } });
  }

  /** A status message of the main shell, or of a subshell. */
  tell(execution_state: string, subshell_id: string | null = null) {
    this.iopubMessage.emit({
      header: { msg_type: 'status' },
      parent_header: { msg_type: 'execute_request', subshell_id },
      content: { execution_state }
    });
  }

  requestExecute(content: FakeKernel['asked'][0]) {
    this.asked.push(content);
    const answer = this.answers.shift() as { text?: string } & object;
    const future = {
      onIOPub: (_: unknown) => undefined as void,
      done: Promise.resolve().then(() => {
        if (answer instanceof Error) {
          throw answer;
        }
        if (answer.text) {
          const header = { msg_type: 'stream' };
          future.onIOPub({ header, content: { name: 'stdout', text: answer.text } });
        }
        return { content: answer };
      })
    };
    return future;
  }

  requestCreateSubshell() {
    this.subshells.push('made');
    return { done: Promise.resolve({ content: { subshell_id: 's' } }) };
  }

  requestDeleteSubshell() {
    this.subshells.push('deleted');
    return { done: Promise.resolve({ content: {} }) };
  }

  clone() {
    return Object.assign(Object.create(this), { dispose: () => undefined });
  }
}

const ok = (values: { [name: string]: string } = {}, text = '') => ({
  status: 'ok',
  text,
  user_expressions: Object.fromEntries(
    Object.entries(values).map(([k, v]) => [k, { status: 'ok', data: { 'text/plain': v } }])
  )
});

describe('runSilently', () => {
  it('leaves no trace', async () => {
    const kernel = new FakeKernel([ok()]);
    await runSilently(kernel.connection, 'x = 1');
    expect(kernel.asked[0]).toMatchObject({
      silent: true,
      store_history: false,
      stop_on_error: false
    });
  });

  it('tries again what the kernel dropped', async () => {
    const kernel = new FakeKernel([{ status: 'aborted' }, { status: 'abort' }, ok({ n: '1' })]);
    expect((await runSilently(kernel.connection, '', { n: '1' })).values.n).toBe('1');
    expect(kernel.asked).toHaveLength(3);
  });

  it('waits for the cell before it tries again', async () => {
    const kernel = new FakeKernel([{ status: 'aborted' }, ok()]);
    kernel.status = 'busy';
    const run = runSilently(kernel.connection, '');
    await new Promise(resolve => setTimeout(resolve, 20));
    expect(kernel.asked).toHaveLength(1);
    kernel.tell('idle', 'ours'); // a subshell's, not the cell's
    await new Promise(resolve => setTimeout(resolve, 20));
    expect(kernel.asked).toHaveLength(1);
    kernel.tell('idle');
    await run;
    expect(kernel.asked).toHaveLength(2);
  });

  it('uses a subshell beside a running cell, and takes it away', async () => {
    const kernel = new FakeKernel([ok()]);
    kernel.status = 'busy';
    kernel.supportsSubshells = true;
    await runSilently(kernel.connection, '');
    expect(kernel.subshells).toEqual(['made', 'deleted']);
  });

  it('does not run C++ beside a running cell, whose output it would take away', async () => {
    const kernel = new FakeKernel([ok()]);
    kernel.status = 'busy';
    kernel.supportsSubshells = true;
    kernel.language = 'c++';
    await runSilently(kernel.connection, '');
    expect(kernel.subshells).toEqual([]);
    expect(kernel.asked).toHaveLength(1);
  });

  it('says when the kernel is gone', async () => {
    const kernel = new FakeKernel([new Error('Canceled future for execute_request')]);
    await expect(runSilently(kernel.connection, '')).rejects.toBeInstanceOf(KernelGone);
  });
});

describe('languages', () => {
  const python = languageOf('python');
  const cpp = languageOf('c++');

  it('confirms a Python variable', async () => {
    await python?.bind(new FakeKernel([ok({ defined: 'True' })]).connection, 'code', 'x');
    const lost = new FakeKernel([ok({ defined: 'False' })]).connection;
    await expect(python?.bind(lost, 'code', 'x')).rejects.toThrow('could not set x');
    const failed = new FakeKernel([{ status: 'error', ename: 'OSError', evalue: 'gone' }])
      .connection;
    await expect(python?.bind(failed, 'code', 'x')).rejects.toThrow('OSError: gone');
  });

  it('confirms a C++ variable by what is printed: errors have status ok', async () => {
    await cpp?.bind(new FakeKernel([ok({}, 'DMSP-BOUND x 3\n')]).connection, 'code', 'x');
    const failed = new FakeKernel([ok({}, 'error: unknown type\n')]).connection;
    await expect(cpp?.bind(failed, 'code', 'x')).rejects.toThrow('unknown type');
    const early = new FakeKernel([ok({}, 'DMSP-NOT-BOUND x not ready\n')]).connection;
    await expect(cpp?.bind(early, 'code', 'x')).rejects.toThrow();
  });

  it('reads the names in use', async () => {
    const kernel = new FakeKernel([ok({ names: '\'["events", "np"]\'' })]);
    expect(await python?.names(kernel.connection)).toEqual(['events', 'np']);
  });

  it('lets no strange name into code', async () => {
    const kernel = new FakeKernel([ok({ defined: 'True' })]);
    await expect(python?.exists(kernel.connection, "x' or 1 #")).rejects.toThrow('not valid');
    await expect(cpp?.exists(kernel.connection, 'x;system("")')).rejects.toThrow('not valid');
    expect(kernel.asked).toEqual([]);
  });

  it('quotes a DID in a cell', () => {
    expect(python?.cell('x', 'a:"b\\')).toContain('dmsp.attach("a:\\"b\\\\")');
  });
});
