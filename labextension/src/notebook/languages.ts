/**
 * What differs between the languages of kernels: confirming a variable, using it in a cell.
 */
import { Kernel } from '@jupyterlab/services';
import { isIdentifier } from '../model/names';
import { IRun, runSilently } from './kernel';

/** A language that variables can be bound in. */
export interface ILanguage {
  /** The key in the API. */
  readonly key: string;
  /** Whether a variable can be bound before the files have arrived. */
  readonly early: boolean;
  /** Whether the variable exists in the kernel; null when the language cannot tell. */
  exists(kernel: Kernel.IKernelConnection, variable: string): Promise<boolean | null>;
  /** Run the code that binds the variable. Rejects with a sentence when it is not there afterwards. */
  bind(kernel: Kernel.IKernelConnection, code: string, variable: string): Promise<void>;
  /** The names in use, as far as the kernel can be asked. */
  names(kernel: Kernel.IKernelConnection): Promise<string[]>;
  /** A cell that uses the variable. */
  cell(variable: string, did: string): string;
}

/** The language of a key of the API, or null. */
export function languageOf(key: string): ILanguage | null {
  return LANGUAGES.find(language => language.key === key) ?? null;
}

/** Kernels that evaluate `user_expressions`: Python, Julia. */
class Expressions implements ILanguage {
  constructor(
    readonly key: string,
    readonly early: boolean,
    private _defined: (variable: string) => string,
    private _true: string,
    private _names: string | null,
    private _cell: (variable: string, did: string) => string
  ) {}

  async exists(kernel: Kernel.IKernelConnection, variable: string): Promise<boolean | null> {
    const run = await runSilently(kernel, '', { defined: this._defined(safe(variable)) });
    return run.values.defined === undefined ? null : run.values.defined === this._true;
  }

  async bind(kernel: Kernel.IKernelConnection, code: string, variable: string): Promise<void> {
    const run = await runSilently(kernel, code, { defined: this._defined(safe(variable)) });
    if (run.error || run.values.defined !== this._true || run.text.includes(NOT_BOUND)) {
      throw new Error(complaint(run, variable));
    }
  }

  async names(kernel: Kernel.IKernelConnection): Promise<string[]> {
    if (!this._names) {
      return [];
    }
    const run = await runSilently(kernel, '', { names: this._names });
    return [...(run.values.names ?? '').matchAll(/"([^"\\]+)"/g)].map(match => match[1]);
  }

  cell(variable: string, did: string): string {
    return this._cell(variable, did);
  }
}

/** What the server's code prints when the variable is set. */
const BOUND = 'DMSP-BOUND';

/** What the server's code prints when it is not. */
const NOT_BOUND = 'DMSP-NOT-BOUND';

/** The C++ kernel: a statement that fails has status "ok", so only what is printed behind it counts. */
class Cpp implements ILanguage {
  readonly key = 'c++';
  readonly early = false;

  async exists(kernel: Kernel.IKernelConnection, variable: string): Promise<boolean | null> {
    return (await this._size(kernel, variable)) !== null;
  }

  async bind(kernel: Kernel.IKernelConnection, code: string, variable: string): Promise<void> {
    const run = await runSilently(kernel, code);
    if (run.error || !run.text.includes(`${BOUND} ${safe(variable)}`)) {
      throw new Error(complaint(run, variable));
    }
  }

  async names(_kernel: Kernel.IKernelConnection): Promise<string[]> {
    return [];
  }

  cell(variable: string, _did: string): string {
    return `for (const auto& path : ${variable}) std::cout << path << std::endl;`;
  }

  private async _size(kernel: Kernel.IKernelConnection, variable: string): Promise<string | null> {
    const mark = `dmsp-${Math.random().toString(36).slice(2)}`;
    const code = `std::cout << "${mark}:" << ${safe(variable)}.size() << std::endl;`;
    const run = await runSilently(kernel, code);
    return run.text.match(new RegExp(`${mark}:(\\d+)`))?.[1] ?? null;
  }
}

/** Kernels that only tell whether the code ran: R. */
class Status implements ILanguage {
  readonly early = false;

  constructor(
    readonly key: string,
    private _cell: (variable: string) => string
  ) {}

  async exists(_kernel: Kernel.IKernelConnection, _variable: string): Promise<boolean | null> {
    return null;
  }

  async bind(kernel: Kernel.IKernelConnection, code: string, variable: string): Promise<void> {
    const run = await runSilently(kernel, code);
    if (run.status !== 'ok' || run.text.includes(NOT_BOUND)) {
      throw new Error(complaint(run, variable));
    }
  }

  async names(_kernel: Kernel.IKernelConnection): Promise<string[]> {
    return [];
  }

  cell(variable: string, _did: string): string {
    return this._cell(variable);
  }
}

const LANGUAGES: ILanguage[] = [
  new Expressions(
    'python',
    true,
    variable => `'${variable}' in globals()`,
    'True',
    "__import__('json').dumps(sorted(n for n in globals() if not n.startswith('_')))",
    (variable, did) =>
      `import dmsp\n\n${variable} = dmsp.attach(${JSON.stringify(did)})\n${variable}`
  ),
  new Cpp(),
  new Status('r', variable => `${variable}`),
  new Expressions(
    'julia',
    false,
    variable => `@isdefined(${variable})`,
    'true',
    null,
    variable => `${variable}`
  )
];

/** Names reach code only through here: they may come from a notebook that a stranger wrote. */
function safe(variable: string): string {
  if (!isIdentifier(variable)) {
    throw new Error('The name of the variable is not valid.');
  }
  return variable;
}

function complaint(run: IRun, variable: string): string {
  const reason = (run.error ?? run.text.trim().split('\n')[0]).slice(0, 200);
  return reason
    ? `The kernel could not set ${variable}: ${reason}`
    : `The kernel could not set ${variable}.`;
}
