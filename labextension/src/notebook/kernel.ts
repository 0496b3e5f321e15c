/**
 * Running code in a kernel without leaving a trace in the notebook.
 */
import { Kernel, KernelMessage } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';

/** How often an execution that was dropped because a cell before it failed is tried again. */
const ATTEMPTS = 20;

/**
 * The one language that may run beside itself. Other kernels made from ipykernel offer subshells too and are not made
 * for them: in ROOT's C++ kernel what we run takes away the output of the cell that runs.
 */
const PYTHON = 'python';

/** What a silent execution brought back. */
export interface IRun {
  status: string;
  /** Printed text, standard output and standard error together. */
  text: string;
  /** The representations of the expressions that could be evaluated. */
  values: { [name: string]: string };
  /** The error's last line, when there was one. */
  error: string | null;
}

/**
 * Whether a kernel's main shell runs something.
 *
 * `kernel.status` does not tell: it follows the status messages of subshells too, and says "idle" as soon as one of
 * ours is done, while the cell still runs.
 */
export class MainShell {
  private static _known = new WeakMap<Kernel.IKernelConnection, MainShell>();
  private _changed = new Signal<this, void>(this);
  private _busy: boolean;

  private constructor(kernel: Kernel.IKernelConnection) {
    this._busy = kernel.status === 'busy';
    kernel.iopubMessage.connect((_, message) => this._follow(message));
    kernel.statusChanged.connect((_, status) => {
      if (status !== 'busy' && status !== 'idle') {
        this._set(false); // starting, restarting, dead: what ran is gone
      }
    });
    kernel.disposed.connect(() => this._set(false));
  }

  /** The shell of a kernel; watched from the first call on. */
  static of(kernel: Kernel.IKernelConnection): MainShell {
    let shell = this._known.get(kernel);
    if (!shell) {
      shell = new MainShell(kernel);
      this._known.set(kernel, shell);
    }
    return shell;
  }

  get busy(): boolean {
    return this._busy;
  }

  /** Resolves when nothing runs, or the kernel is gone. */
  async idle(): Promise<void> {
    while (this._busy) {
      await new Promise<void>(resolve => {
        const slot = () => {
          this._changed.disconnect(slot);
          resolve();
        };
        this._changed.connect(slot);
      });
    }
  }

  private _follow(message: KernelMessage.IIOPubMessage): void {
    if (!KernelMessage.isStatusMsg(message)) {
      return;
    }
    const parent = message.parent_header as { msg_type?: string; subshell_id?: string | null };
    if (parent.msg_type === 'execute_request' && !parent.subshell_id) {
      this._set(message.content.execution_state === 'busy');
    }
  }

  private _set(busy: boolean): void {
    if (busy !== this._busy) {
      this._busy = busy;
      this._changed.emit();
    }
  }
}

/** The kernel went away or was restarted while it was asked. */
export class KernelGone extends Error {
  constructor() {
    super('The kernel was stopped.');
    this.name = 'KernelGone';
  }
}

/**
 * Run code silently: no history, no execution count, no output in a cell.
 *
 * Behind a cell that fails the kernel drops what is queued ("aborted"): then it is asked again. While a cell runs, a
 * Python kernel with subshells answers at once; another one when the cell is done.
 */
export async function runSilently(
  kernel: Kernel.IKernelConnection,
  code: string,
  expressions: { [name: string]: string } = {}
): Promise<IRun> {
  for (let attempt = 1; ; attempt++) {
    const run = await Private.once(kernel, code, expressions);
    if (run.status !== 'aborted' && run.status !== 'abort') {
      return run;
    }
    if (attempt === ATTEMPTS) {
      return { ...run, error: 'The kernel dropped the request again and again.' };
    }
    await MainShell.of(kernel).idle();
  }
}

/** The name of the kernel's language. Waits for a kernel that starts; rejects when it goes away before it has. */
export async function kernelLanguage(kernel: Kernel.IKernelConnection): Promise<string> {
  let gone: () => void = () => undefined;
  const disposed = new Promise<never>((_, reject) => {
    gone = () => reject(new KernelGone());
    kernel.disposed.connect(gone);
  });
  try {
    return (await Promise.race([kernel.info, disposed])).language_info.name;
  } finally {
    kernel.disposed.disconnect(gone);
  }
}

namespace Private {
  export async function once(
    kernel: Kernel.IKernelConnection,
    code: string,
    expressions: { [name: string]: string }
  ): Promise<IRun> {
    if (kernel.isDisposed) {
      throw new KernelGone();
    }
    if (
      MainShell.of(kernel).busy &&
      kernel.supportsSubshells &&
      (await kernelLanguage(kernel)) === PYTHON
    ) {
      return inSubshell(kernel, code, expressions);
    }
    return execute(kernel, code, expressions);
  }

  /** A subshell of our own beside the running cell, taken away afterwards. */
  async function inSubshell(
    kernel: Kernel.IKernelConnection,
    code: string,
    expressions: { [name: string]: string }
  ): Promise<IRun> {
    const reply = await control(kernel.requestCreateSubshell({}).done);
    const id = (reply.content as { subshell_id?: string }).subshell_id;
    if (!id) {
      return execute(kernel, code, expressions);
    }
    const clone = kernel.clone();
    clone.subshellId = id;
    try {
      return await execute(clone, code, expressions);
    } finally {
      // A clone deletes its subshell when it is disposed, but only after its own kernel info has come, which waits
      // for the running cell: so the id is taken from it and the subshell deleted here.
      clone.subshellId = null;
      clone.dispose();
      if (!kernel.isDisposed) {
        void kernel.requestDeleteSubshell({ subshell_id: id }).done.catch(() => undefined);
      }
    }
  }

  async function execute(
    kernel: Kernel.IKernelConnection,
    code: string,
    expressions: { [name: string]: string }
  ): Promise<IRun> {
    const future = kernel.requestExecute({
      code,
      silent: true,
      store_history: false,
      allow_stdin: false,
      stop_on_error: false,
      user_expressions: expressions
    });
    let text = '';
    future.onIOPub = message => {
      if (KernelMessage.isStreamMsg(message)) {
        text += message.content.text;
      }
    };
    const reply = await control(future.done);
    const content = reply.content as KernelMessage.IReplyErrorContent & {
      status: string;
      user_expressions?: { [name: string]: { status?: string; data?: { [mime: string]: string } } };
    };
    const values: { [name: string]: string } = {};
    for (const [name, result] of Object.entries(content.user_expressions ?? {})) {
      const value = result?.data?.['text/plain'];
      if (result?.status === 'ok' && value !== undefined) {
        values[name] = value;
      }
    }
    const error =
      content.status === 'error' ? `${content.ename ?? 'Error'}: ${content.evalue ?? ''}` : null;
    return { status: content.status, text, values, error };
  }

  /** Futures reject when the kernel is restarted or its connection goes. */
  async function control<T>(done: Promise<T>): Promise<T> {
    try {
      return await done;
    } catch {
      throw new KernelGone();
    }
  }
}
