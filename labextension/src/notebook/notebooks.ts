/**
 * All open notebooks, and which of them an attachment has variables in.
 */
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { ISignal, Signal } from '@lumino/signaling';
import { ILinkOptions, IVariable, NotebookLink } from './link';

/** A variable and its notebook. */
export interface IUse {
  link: NotebookLink;
  variable: IVariable;
}

/** The links of the open notebooks. */
export class Notebooks {
  private _links = new Map<NotebookPanel, NotebookLink>();
  private _changed = new Signal<this, void>(this);

  constructor(
    private _tracker: INotebookTracker | null,
    private _options: ILinkOptions
  ) {
    this._tracker?.forEach(panel => this._add(panel));
    this._tracker?.widgetAdded.connect((_, panel) => this._add(panel));
    this._tracker?.currentChanged.connect(() => this._changed.emit());
  }

  /** Emitted when a notebook is opened, closed or chosen, or a variable has changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** The notebook that the user works in, or null. */
  get current(): NotebookLink | null {
    const panel = this._tracker?.currentWidget;
    return (panel && this._links.get(panel)) ?? null;
  }

  get links(): NotebookLink[] {
    return [...this._links.values()];
  }

  /** The variables of an attachment in the open notebooks, those of the current one first. */
  uses(attachment: string): IUse[] {
    const current = this.current;
    return this.links
      .sort((a, b) => Number(b === current) - Number(a === current))
      .flatMap(link =>
        link.variables
          .filter(variable => variable.attachment === attachment)
          .map(variable => ({ link, variable }))
      );
  }

  /** Variables that could not be attached again when their notebook was opened. */
  orphans(): IUse[] {
    return this.links.flatMap(link =>
      link.variables
        .filter(variable => !variable.attachment && variable.state === 'failed')
        .map(variable => ({ link, variable }))
    );
  }

  private _add(panel: NotebookPanel): void {
    if (this._links.has(panel)) {
      return;
    }
    const link = new NotebookLink(panel, this._options);
    this._links.set(panel, link);
    link.changed.connect(() => this._changed.emit());
    panel.disposed.connect(() => {
      this._links.delete(panel);
      this._changed.emit();
    });
    this._changed.emit();
  }
}
