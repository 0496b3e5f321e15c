/**
 * The dialog that asks for the variable's name and how long the data is needed.
 */
import { Dialog, ReactWidget } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { HTMLSelect } from '@jupyterlab/ui-components';
import { ISignal, Signal } from '@lumino/signaling';
import * as React from 'react';
import { Glyph, kindShape } from '../icons';
import { formatBytes, formatCount, formatSeconds } from '../model/format';
import { NameProblem, checkName, refuses } from '../model/names';
import { IStatus, Kind } from '../model/types';
import { useChanges } from './common';

/** Lifetimes that are offered beside the lake's own, in seconds. */
const LIFETIMES = [86400, 7 * 86400, 30 * 86400, 90 * 86400];

/** What is known of the DID when the dialog opens. */
export interface ISubject {
  did: string;
  kind: Kind | null;
  bytes: number | null;
  files: number | null;
  /** Whether all of it is on scratch already. */
  here: boolean;
}

/** What the user chose. Lifetime in seconds, null for the lake's own. */
export interface IChoice {
  variable: string;
  lifetime: number | null;
}

/** What the dialog is about. The name, the names in use and the status may come while it is open. */
export class AttachForm {
  variable = '';
  lifetime: number | null = null;
  status: IStatus | null = null;
  taken: ReadonlySet<string> = new Set();
  private _touched = false;
  private _changed = new Signal<this, void>(this);

  constructor(
    readonly subject: ISubject,
    readonly language: string,
    readonly notebook: string | null
  ) {}

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Whether the user has typed a name. */
  get touched(): boolean {
    return this._touched;
  }

  /** What is wrong with the name. */
  get problem(): NameProblem | null {
    return checkName(this.variable, this.taken);
  }

  /** Whether the dialog may be accepted. */
  get valid(): boolean {
    return !refuses(this.problem);
  }

  /** The user typed a name. */
  type(variable: string): void {
    this._touched = true;
    this.variable = variable.trim();
    this._changed.emit();
  }

  /** A name was proposed: it counts until the user has typed one. */
  propose(variable: string): void {
    if (!this._touched) {
      this.variable = variable;
      this._changed.emit();
    }
  }

  /** More is known now. */
  learn(known: { status?: IStatus | null; taken?: ReadonlySet<string> }): void {
    this.status = known.status ?? this.status;
    this.taken = known.taken ?? this.taken;
    this._changed.emit();
  }

  /** The user chose a lifetime. */
  keep(lifetime: number | null): void {
    this.lifetime = lifetime;
    this._changed.emit();
  }
}

function problemText(problem: NameProblem, form: AttachForm, trans: TranslationBundle): string {
  const { variable, notebook } = form;
  switch (problem) {
    case 'empty':
      return trans.__('A name is needed.');
    case 'syntax':
      return trans.__('Letters, digits and underscores only, and no digit first.');
    case 'keyword':
      return trans.__('“%1” is a word of Python, C++, R or Julia itself.', variable);
    default:
      return trans.__('“%1” exists in %2 and will be replaced.', variable, notebook ?? '');
  }
}

/** The field for the variable's name. */
export function NameField(props: {
  form: AttachForm;
  refused: boolean;
  hint: string;
  trans: TranslationBundle;
}): JSX.Element {
  const { form, refused, hint, trans } = props;
  useChanges(form.changed);
  const input = React.useRef<HTMLInputElement>(null);
  // A proposal that comes while the field has the focus is selected: what is typed replaces it and is not put behind it.
  React.useLayoutEffect(() => {
    if (!form.touched && input.current === document.activeElement) {
      input.current?.select();
    }
  }, [form, form.variable]);
  return (
    <label>
      <span>{trans.__('Variable name')}</span>
      <input
        ref={input}
        type="text"
        className="jp-mod-styled"
        value={form.variable}
        spellCheck={false}
        autoComplete="off"
        maxLength={100}
        aria-invalid={refused}
        aria-describedby={hint}
        onChange={event => form.type(event.target.value)}
      />
    </label>
  );
}

function Form(props: { form: AttachForm; trans: TranslationBundle }): JSX.Element {
  const { form, trans } = props;
  useChanges(form.changed);
  const problem = form.problem;
  const refused = refuses(problem);
  const hint = React.useId();
  return (
    <div className="jp-DMSP-form">
      <p className="jp-DMSP-subject">
        <Glyph shape={kindShape(form.subject.kind ?? 'dataset')} />
        <span className="jp-DMSP-did">{form.subject.did}</span>
      </p>
      <p className="jp-DMSP-quiet">{amount(form, trans)}</p>
      <NameField form={form} refused={refused} hint={hint} trans={trans} />
      <p
        id={hint}
        aria-live="polite"
        className={`jp-DMSP-hint${problem ? (refused ? ' jp-mod-refused' : ' jp-mod-warn') : ''}`}
      >
        {problem && <Glyph shape="warning" />}
        {problem ? problemText(problem, form, trans) : target(form, trans)}
      </p>
      <Lifetime form={form} trans={trans} />
      <Space form={form} trans={trans} />
    </div>
  );
}

function amount(form: AttachForm, trans: TranslationBundle): string {
  const { bytes, files, here } = form.subject;
  const parts: string[] = [];
  if (files !== null) {
    parts.push(trans._n('%1 file', '%2 files', files, formatCount(files)));
  }
  if (bytes !== null) {
    parts.push(formatBytes(bytes));
  }
  parts.push(here ? trans.__('already on scratch') : trans.__('will be copied to scratch'));
  return parts.join(' · ');
}

function target(form: AttachForm, trans: TranslationBundle): string {
  return form.notebook
    ? trans.__('Will be set in %1.', form.notebook)
    : trans.__('No notebook is open: the data is attached, a variable can be set later.');
}

function Lifetime(props: { form: AttachForm; trans: TranslationBundle }): JSX.Element {
  const { form, trans } = props;
  const own = form.status?.rule_lifetime ?? null;
  const choices = LIFETIMES.filter(seconds => seconds !== own);
  return (
    <label>
      <span>{trans.__('Keep on scratch for')}</span>
      <HTMLSelect
        value={form.lifetime ?? ''}
        onChange={event => form.keep(event.target.value ? Number(event.target.value) : null)}
      >
        <option value="">
          {own ? trans.__('%1 (usual)', formatSeconds(own)) : trans.__('the usual time')}
        </option>
        {choices.map(seconds => (
          <option key={seconds} value={seconds}>
            {formatSeconds(seconds)}
          </option>
        ))}
      </HTMLSelect>
    </label>
  );
}

function Space(props: { form: AttachForm; trans: TranslationBundle }): JSX.Element | null {
  const { form, trans } = props;
  const free = form.status?.mount.free_bytes ?? null;
  if (free === null || form.subject.here) {
    return null;
  }
  const short = form.subject.bytes !== null && form.subject.bytes > free;
  return (
    <p className={`jp-DMSP-hint${short ? ' jp-mod-warn' : ''}`}>
      {short && <Glyph shape="warning" />}
      {short
        ? trans.__('Only %1 are free on scratch.', formatBytes(free))
        : trans.__('%1 are free on scratch.', formatBytes(free))}
    </p>
  );
}

class Body extends ReactWidget implements Dialog.IBodyWidget<IChoice> {
  constructor(
    private _form: AttachForm,
    private _trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-DMSP-dialogBody');
  }

  getValue(): IChoice {
    return { variable: this._form.variable, lifetime: this._form.lifetime };
  }

  protected override render(): JSX.Element {
    return <Form form={this._form} trans={this._trans} />;
  }
}

/** A dialog that is not accepted while the name is refused, whichever way: button or Enter. */
class AttachDialog extends Dialog<IChoice> {
  constructor(
    private _form: AttachForm,
    trans: TranslationBundle
  ) {
    super({
      title: trans.__('Attach dataset'),
      body: new Body(_form, trans),
      focusNodeSelector: 'input',
      buttons: [
        Dialog.cancelButton({ label: trans.__('Cancel') }),
        Dialog.okButton({ label: trans.__('Attach') })
      ]
    });
    this.node.setAttribute('aria-label', trans.__('Attach dataset'));
    this.addClass('jp-DMSP-dialog');
    _form.changed.connect(this._check, this);
    this._check();
  }

  override resolve(index?: number): void {
    if (index !== 0 && !this._form.valid) {
      return;
    }
    super.resolve(index);
  }

  private _check(): void {
    const button = this.node.querySelector<HTMLButtonElement>('button.jp-mod-accept');
    if (button) {
      button.disabled = !this._form.valid;
    }
  }
}

/** Ask. Resolves with null when the user thinks better of it. */
export async function askAttach(
  form: AttachForm,
  trans: TranslationBundle
): Promise<IChoice | null> {
  const result = await new AttachDialog(form, trans).launch();
  return result.button.accept && result.value ? result.value : null;
}
