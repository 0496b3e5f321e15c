/**
 * The commands: for the palette, the context menu, the toolbar, and for other extensions.
 */
import { JupyterFrontEnd } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { infoIcon, copyIcon, refreshIcon } from '@jupyterlab/ui-components';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { CommandIDs } from './commandIds';
import { attachIcon, lakeIcon } from './icons';
import { LakeActions } from './lake';
import { TreeModel } from './model/tree';
import { IRow, attachable, didOf } from './model/types';
import { DetailsModel } from './panels/details';
import { SIDEBAR_ID, Sidebar } from './panels/sidebar';

/** What the commands work on. */
export interface ICommandParts {
  actions: LakeActions;
  tree: TreeModel;
  details: DetailsModel;
  sidebar: () => Sidebar;
  refresh: () => void;
  trans: TranslationBundle;
}

const NO_ARGS: ReadonlyPartialJSONObject = { args: { type: 'object', properties: {} } };

const ATTACH_ARGS: ReadonlyPartialJSONObject = {
  args: {
    type: 'object',
    properties: {
      did: { type: 'string', description: 'scope:name; default: the chosen row of the tree' },
      variable: { type: 'string', description: 'name of the variable; default: a proposal' },
      dialog: { type: 'boolean', description: 'whether to ask first; default: true' }
    }
  }
};

/** Register the commands. */
export function addCommands(
  app: JupyterFrontEnd,
  palette: ICommandPalette | null,
  parts: ICommandParts
): void {
  const { trans, tree, actions } = parts;
  const { commands } = app;
  const chosen = () => tree.activeRow;
  const canAttach = () => attachable(chosen());
  const open = () => app.shell.activateById(SIDEBAR_ID);

  commands.addCommand(CommandIDs.open, {
    label: trans.__('Show Data Lake'),
    caption: trans.__('Find and attach datasets'),
    icon: lakeIcon,
    describedBy: NO_ARGS,
    execute: open
  });
  commands.addCommand(CommandIDs.attach, {
    label: trans.__('Attach Dataset…'),
    caption: trans.__('Attach'),
    icon: attachIcon,
    describedBy: ATTACH_ARGS,
    isEnabled: args => !!args.did || canAttach(),
    execute: async args => {
      const row = typeof args.did === 'string' ? rowOf(args.did) : chosen();
      if (!row) {
        return;
      }
      if (args.dialog === false) {
        const variable = typeof args.variable === 'string' ? args.variable : undefined;
        await actions.attachAs(didOf(row), variable, null);
      } else {
        await actions.attach(row);
      }
    }
  });
  commands.addCommand(CommandIDs.refresh, {
    label: trans.__('Refresh Data Lake'),
    caption: trans.__('Refresh'),
    icon: refreshIcon,
    describedBy: NO_ARGS,
    execute: parts.refresh
  });
  commands.addCommand(CommandIDs.details, {
    label: trans.__('Details'),
    caption: trans.__('Details'),
    icon: infoIcon,
    describedBy: NO_ARGS,
    isEnabled: canAttach,
    execute: () => {
      const row = chosen();
      if (row) {
        open();
        parts.sidebar().showDetails();
        void parts.details.show(didOf(row));
      }
    }
  });
  commands.addCommand(CommandIDs.copyDid, {
    label: trans.__('Copy DID'),
    icon: copyIcon,
    describedBy: NO_ARGS,
    isEnabled: () => chosen() !== null,
    execute: () => withRow(chosen(), row => actions.copyDid(row))
  });
  commands.addCommand(CommandIDs.copyPath, {
    label: trans.__('Copy Path on Scratch'),
    describedBy: NO_ARGS,
    isEnabled: canAttach,
    execute: () => withRow(chosen(), row => actions.copyPath(row))
  });
  tree.changed.connect(() => {
    commands.notifyCommandChanged(CommandIDs.attach);
    commands.notifyCommandChanged(CommandIDs.details);
  });
  for (const command of [CommandIDs.open, CommandIDs.attach, CommandIDs.refresh]) {
    palette?.addItem({ command, category: trans.__('Data Lake') });
  }
}

function withRow(row: IRow | null, action: (row: IRow) => unknown): unknown {
  return row ? action(row) : undefined;
}

/** A DID that was given by name: nothing else is known of it. */
function rowOf(did: string): IRow | null {
  const colon = did.indexOf(':');
  if (colon < 1 || colon === did.length - 1) {
    return null;
  }
  return {
    kind: 'dataset',
    scope: did.slice(0, colon),
    name: did.slice(colon + 1),
    bytes: null,
    length: null,
    availability: 'unknown',
    created: null
  };
}
