/**
 * One open notebook and the variables that attachments have in it.
 */
import { ISessionContext } from '@jupyterlab/apputils';
import { NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { Kernel } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';
import { LakeApi, asFault } from '../model/api';
import { AttachmentsModel } from '../model/attachments';
import { languageKey } from '../model/names';
import { IAttachment, IProvenance } from '../model/types';
import { KernelGone, MainShell, kernelLanguage } from './kernel';
import { ILanguage, languageOf } from './languages';
import { completeAttachment, readAttachments, writeAttachment } from './metadata';

/**
 * Where a variable stands: `waiting` for files or a kernel, `setting` while the kernel is asked, `set`, or `failed`.
 */
export type VariableState = 'waiting' | 'setting' | 'set' | 'failed';

/** A variable of a notebook. */
export interface IVariable {
  name: string;
  did: string;
  attachment: string | null;
  state: VariableState;
  error: string | null;
}

/** What a link needs to know about the lake. */
export interface ILinkOptions {
  api: LakeApi;
  attachments: AttachmentsModel;
  /** The paths of the server without a drive's prefix. */
  localPath: (path: string) => string;
  /** The name of the lake, "" before it is known. */
  lake: () => string;
  /** Whether variables come back when a notebook is opened. */
  restore: () => boolean;
}

/**
 * Keeps the variables of one notebook set: when an attachment becomes ready, when the kernel starts again, when the
 * notebook is opened. Setting twice does no harm; what a user has put under the name since is left alone.
 */
export class NotebookLink implements IDisposable {
  private _variables = new Map<string, IVariable>();
  private _own = new Set<string>();
  private _jobs: Promise<void> = Promise.resolve();
  private _path: string;
  private _disposed = false;
  private _changed = new Signal<this, void>(this);

  constructor(
    readonly panel: NotebookPanel,
    private _options: ILinkOptions
  ) {
    this._path = _options.localPath(panel.context.path);
    panel.sessionContext.kernelChanged.connect(this._onKernel, this);
    panel.sessionContext.statusChanged.connect(this._onStatus, this);
    panel.context.pathChanged.connect(this._onPath, this);
    _options.attachments.transition.connect(this._onTransition, this);
    panel.disposed.connect(this.dispose, this);
    if (this.kernel) {
      MainShell.of(this.kernel);
    }
    void panel.context.ready.then(() => this._restore());
  }

  /** Emitted when a variable has changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** The notebook's path on the server. */
  get path(): string {
    return this._path;
  }

  /** The notebook's file name. */
  get title(): string {
    return this._path.split('/').pop() ?? this._path;
  }

  get variables(): IVariable[] {
    return [...this._variables.values()];
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    this._options.attachments.transition.disconnect(this._onTransition, this);
    Signal.clearData(this);
  }

  /** The kernel, when there is one. */
  get kernel(): Kernel.IKernelConnection | null {
    const kernel = this.panel.sessionContext.session?.kernel ?? null;
    return kernel?.isDisposed ? null : kernel;
  }

  /** Whether a cell runs. */
  get busy(): boolean {
    return this.kernel !== null && MainShell.of(this.kernel).busy;
  }

  /** The key of the notebook's language, from the kernel, else from the notebook itself. */
  async language(): Promise<string> {
    const kernel = this.kernel;
    return languageKey(
      kernel ? await kernelLanguage(kernel) : this.panel.model?.defaultKernelLanguage
    );
  }

  /** The names in use in the kernel and here. A kernel that is busy and has no subshells answers late. */
  async names(): Promise<Set<string>> {
    const names = new Set(this._variables.keys());
    const kernel = this.kernel;
    if (kernel) {
      try {
        const language = languageOf(await this.language());
        (await language?.names(kernel))?.forEach(name => names.add(name));
      } catch (error) {
        if (!(error instanceof KernelGone)) {
          throw error;
        }
      }
    }
    return names;
  }

  /** Give an attachment a variable here: remembered by the notebook and the server, set in the kernel. */
  add(attachment: IAttachment, name: string): void {
    const model = this.panel.model;
    if (model && !this.panel.context.model.readOnly) {
      writeAttachment(model, this._entry(attachment, name));
    }
    this._own.add(name);
    this._put({
      name,
      did: attachment.did,
      attachment: attachment.id,
      state: 'waiting',
      error: null
    });
    void this._enqueue(name, true); // not awaited: a busy kernel may take hours
  }

  /** Insert a cell that uses a variable below the active one. */
  async insertCell(name: string): Promise<void> {
    const variable = this._variables.get(name);
    const source = languageOf(await this.language())?.cell(name, variable?.did ?? '');
    if (!source) {
      return;
    }
    const notebook = this.panel.content;
    NotebookActions.insertBelow(notebook);
    notebook.activeCell?.model.sharedModel.setSource(source);
    notebook.activate();
  }

  /** Forget the variables of an attachment that has been released. */
  async drop(attachment: string): Promise<void> {
    const gone = this.variables.filter(variable => variable.attachment === attachment);
    for (const variable of gone) {
      this._variables.delete(variable.name);
      await this._options.api.unbind(this._path, variable.name).catch(() => undefined);
    }
    if (gone.length) {
      this._emit();
    }
  }

  private _entry(attachment: IAttachment, name: string): IProvenance {
    return {
      did: attachment.did,
      variable: name,
      lake: this._options.lake(),
      files: attachment.files_total,
      bytes: attachment.bytes_total,
      digest: attachment.digest ?? null,
      attached_at: new Date().toISOString()
    };
  }

  /** The notebook has been opened: what its metadata names is asked for again. Writes nothing into the notebook. */
  private async _restore(): Promise<void> {
    const model = this.panel.model;
    if (!model || this._disposed || !this._options.restore()) {
      return;
    }
    const entries = readAttachments(model);
    for (const entry of entries) {
      this._put({
        name: entry.variable,
        did: entry.did,
        attachment: null,
        state: 'waiting',
        error: null
      });
    }
    await Promise.all(entries.map(entry => this._reattach(entry)));
  }

  private async _reattach(entry: IProvenance): Promise<void> {
    const lake = this._options.lake();
    if (entry.lake && lake && entry.lake !== lake) {
      this._patch(entry.variable, {
        state: 'failed',
        error: `${entry.did} belongs to the lake ${entry.lake}; this is ${lake}.`
      });
      return;
    }
    try {
      const attachment = await this._options.attachments.attach({
        did: entry.did,
        variable: entry.variable,
        notebook: this._path
      });
      this._patch(entry.variable, { attachment: attachment.id });
      await this._enqueue(entry.variable, false);
    } catch (error) {
      this._patch(entry.variable, { state: 'failed', error: asFault(error).message });
    }
  }

  private _onKernel(_: ISessionContext, args: { newValue: Kernel.IKernelConnection | null }): void {
    if (args.newValue) {
      MainShell.of(args.newValue);
      this._again();
    }
  }

  /** A crash only shows as a status; a restart as both. */
  private _onStatus(_: ISessionContext, status: Kernel.Status): void {
    if (status === 'starting' || status === 'restarting' || status === 'autorestarting') {
      this._again();
    }
  }

  private _again(): void {
    for (const variable of this.variables) {
      if (variable.attachment) {
        this._patch(variable.name, { state: 'waiting', error: null });
        void this._enqueue(variable.name, false);
      }
    }
  }

  private _onTransition(_: AttachmentsModel, change: { attachment: IAttachment }): void {
    const { attachment } = change;
    for (const variable of this.variables) {
      if (variable.attachment !== attachment.id || attachment.state !== 'ready') {
        continue;
      }
      const model = this.panel.model;
      if (model && this._own.has(variable.name)) {
        completeAttachment(model, this._entry(attachment, variable.name));
      }
      void this._enqueue(variable.name, variable.state !== 'set');
    }
  }

  private async _onPath(): Promise<void> {
    const old = this._path;
    this._path = this._options.localPath(this.panel.context.path);
    for (const variable of this.variables) {
      if (variable.attachment) {
        const { name, attachment } = variable;
        await this._options.api.bind(this._path, name, attachment).catch(() => undefined);
        await this._options.api.unbind(old, name).catch(() => undefined);
      }
    }
    this._emit();
  }

  /** Set a variable behind what is being set already. */
  private _enqueue(name: string, overwrite: boolean): Promise<void> {
    this._jobs = this._jobs.then(() => this._set(name, overwrite));
    return this._jobs;
  }

  /**
   * @param overwrite - whether the user asked for this name now; else what is under the name stays
   */
  private async _set(name: string, overwrite: boolean): Promise<void> {
    const variable = this._variables.get(name);
    if (!variable?.attachment || this._disposed) {
      return;
    }
    try {
      const code = await this._options.api.bind(this._path, name, variable.attachment);
      const kernel = this.kernel;
      if (!kernel) {
        return; // bound by the server when a kernel starts, and by `_onKernel`
      }
      const key = await this.language();
      const language = languageOf(key);
      if (!language || !code[key]) {
        throw new Error('Kernels of this language get no variable; the paths are in the manifest.');
      }
      const ready = this._options.attachments.get(variable.attachment)?.state === 'ready';
      if (ready || language.early) {
        this._patch(name, { state: 'setting', error: null });
        await this._bind(kernel, language, code[key], name, overwrite);
        this._patch(name, { state: 'set', error: null });
      }
    } catch (error) {
      if (error instanceof KernelGone) {
        this._patch(name, { state: 'waiting', error: null }); // the next kernel gets it
      } else {
        this._patch(name, { state: 'failed', error: asFault(error).message });
      }
    }
  }

  private async _bind(
    kernel: Kernel.IKernelConnection,
    language: ILanguage,
    code: string,
    name: string,
    overwrite: boolean
  ): Promise<void> {
    if (!overwrite && (await language.exists(kernel, name))) {
      return;
    }
    await language.bind(kernel, code, name);
  }

  private _put(variable: IVariable): void {
    this._variables.set(variable.name, variable);
    this._emit();
  }

  private _patch(name: string, change: Partial<IVariable>): void {
    const variable = this._variables.get(name);
    if (variable) {
      this._variables.set(name, { ...variable, ...change });
      this._emit();
    }
  }

  private _emit(): void {
    if (!this._disposed) {
      this._changed.emit();
    }
  }
}
