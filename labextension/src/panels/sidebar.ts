/**
 * The sidebar: Browse, Attached and, on demand, Details.
 */
import {
  CommandToolbarButton,
  PanelWithToolbar,
  ReactWidget,
  SidePanel
} from '@jupyterlab/ui-components';
import { ITranslator } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { AccordionPanel } from '@lumino/widgets';
import { lakeIcon } from '../icons';
import { CommandIDs } from '../commandIds';

/** The id of the sidebar in the shell. */
export const SIDEBAR_ID = 'dmsp-data-lake';

/** What the sidebar is made of. */
export interface ISidebarOptions {
  browse: ReactWidget;
  attached: ReactWidget;
  details: ReactWidget;
  commands: CommandRegistry;
  translator: ITranslator;
}

/** The Data Lake sidebar. */
export class Sidebar extends SidePanel {
  private _details: PanelWithToolbar;

  constructor(options: ISidebarOptions) {
    super({ translator: options.translator });
    const trans = options.translator.load('jupyterhub_dmsp');
    this.id = SIDEBAR_ID;
    this.addClass('jp-DMSP-sidebar');
    this.title.icon = lakeIcon;
    this.title.caption = trans.__('Data Lake');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Data Lake'));

    const browse = section(trans.__('Browse'), options.browse);
    for (const id of [CommandIDs.attach, CommandIDs.details, CommandIDs.refresh]) {
      browse.toolbar.addItem(
        id,
        new CommandToolbarButton({ commands: options.commands, id, label: '' })
      );
    }
    this.addWidget(browse);
    this.addWidget(section(trans.__('Attached'), options.attached));
    this._details = section(trans.__('Details'), options.details);
    (this.content as AccordionPanel).setRelativeSizes([6, 4]);
  }

  /** Show the details. */
  showDetails(): void {
    const content = this.content as AccordionPanel;
    if (!this._details.parent) {
      this.addWidget(this._details);
      content.setRelativeSizes([4, 3, 3]);
    }
    content.expand(content.widgets.indexOf(this._details));
  }
}

function section(label: string, widget: ReactWidget): PanelWithToolbar {
  const panel = new PanelWithToolbar();
  panel.title.label = label;
  panel.addClass('jp-DMSP-section');
  panel.addWidget(widget);
  return panel;
}
