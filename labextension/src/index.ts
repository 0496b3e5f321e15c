/**
 * The Data Lake in JupyterLab: find a dataset, attach it, use it as a variable.
 */
import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { Event } from '@jupyterlab/services';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, TranslationBundle, nullTranslator } from '@jupyterlab/translation';
import { Announcer } from './announcer';
import { CommandIDs } from './commandIds';
import { addCommands } from './commands';
import { LakeActions } from './lake';
import { LakeApi } from './model/api';
import { AttachmentsModel, LISTING_SCHEMA } from './model/attachments';
import { Preferences } from './model/preferences';
import { StatusModel } from './model/status';
import { TreeModel } from './model/tree';
import { IAttachment } from './model/types';
import { Notebooks } from './notebook/notebooks';
import { createAttached } from './panels/attached';
import { createBrowse } from './panels/browse';
import { logIn } from './panels/common';
import { DetailsModel, createDetails } from './panels/details';
import { SIDEBAR_ID, Sidebar } from './panels/sidebar';
import { createStatusItem } from './panels/statusbar';
import { LoginWatch } from './relogin';

/** The id of the plugin, and of its settings. */
const PLUGIN_ID = 'jupyterhub-dmsp:plugin';

/** The models and actions, made once. */
interface IParts {
  api: LakeApi;
  tree: TreeModel;
  status: StatusModel;
  attachments: AttachmentsModel;
  notebooks: Notebooks;
  actions: LakeActions;
  details: DetailsModel;
  preferences: Preferences;
  trans: TranslationBundle;
}

function createParts(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  trans: TranslationBundle
): IParts {
  const { serviceManager } = app;
  const api = new LakeApi(serviceManager.serverSettings);
  const preferences = new Preferences();
  const status = new StatusModel(api);
  const tree = new TreeModel(api);
  const attachments = new AttachmentsModel(api, serviceManager.events.stream);
  const notebooks = new Notebooks(tracker, {
    api,
    attachments,
    localPath: path => serviceManager.contents.localPath(path),
    lake: () => status.lake,
    restore: () => preferences.restore
  });
  const actions = new LakeActions({ api, attachments, notebooks, status, trans });
  const details = new DetailsModel(api);
  return { api, tree, status, attachments, notebooks, actions, details, preferences, trans };
}

function createSidebar(app: JupyterFrontEnd, parts: IParts, translator: ITranslator): Sidebar {
  const { tree, status, attachments, notebooks, actions, trans } = parts;
  return new Sidebar({
    browse: createBrowse({
      tree,
      attachments,
      status,
      trans,
      onAttach: row => void actions.attach(row),
      onRefresh: () => void app.commands.execute(CommandIDs.refresh)
    }),
    attached: createAttached({
      attachments,
      notebooks,
      trans,
      actions: {
        insert: item => void actions.insert(item),
        release: item => void actions.release(item),
        retry: item => void actions.retry(item),
        extend: item => void actions.extend(item)
      }
    }),
    details: createDetails(parts.details, trans),
    commands: app.commands,
    translator
  });
}

/** One sentence about the variables of an attachment. */
function usesText(parts: IParts, attachment: IAttachment): string {
  const uses = parts.notebooks.uses(attachment.id);
  return uses
    .map(use => parts.trans.__('%1 is in %2.', use.variable.name, use.link.title))
    .join(' ');
}

function refreshAll(parts: IParts): void {
  const quietly = (job: Promise<void>) => void job.catch(() => undefined); // the panels tell
  quietly(parts.status.refresh());
  quietly(parts.attachments.refresh());
  quietly(parts.tree.refresh());
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN_ID,
  description: 'Find datasets in the data lake, attach them, use them as variables.',
  autoStart: true,
  optional: [
    INotebookTracker,
    ICommandPalette,
    ISettingRegistry,
    ILayoutRestorer,
    IStatusBar,
    ITranslator
  ],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    settings: ISettingRegistry | null,
    restorer: ILayoutRestorer | null,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ) => {
    const language = translator ?? nullTranslator;
    const trans = language.load('jupyterhub_dmsp');
    const parts = createParts(app, tracker, trans);
    let sidebar: Sidebar | null = null;
    addCommands(app, palette, {
      actions: parts.actions,
      tree: parts.tree,
      details: parts.details,
      refresh: () => refreshAll(parts),
      sidebar: () => sidebar as Sidebar,
      trans
    });
    sidebar = createSidebar(app, parts, language);
    app.shell.add(sidebar, 'left', { rank: 150, type: 'Data Lake' });
    restorer?.add(sidebar, SIDEBAR_ID);

    const show = () => void app.commands.execute(CommandIDs.open);
    const announcer = new Announcer({
      attachments: parts.attachments,
      trans,
      enabled: () => parts.preferences.notifications,
      show,
      retry: attachment => void parts.actions.retry(attachment),
      uses: attachment => usesText(parts, attachment)
    });
    new LoginWatch({
      status: parts.status,
      trans,
      logIn,
      onBack: () => refreshAll(parts),
      say: text => announcer.say(text)
    });
    statusBar?.registerStatusItem(PLUGIN_ID, {
      item: createStatusItem(parts.attachments, trans, show),
      align: 'left',
      rank: 100
    });
    listen(app, parts);
    void begin(parts, settings, sidebar);
  }
};

/** Hints about listings that grow. */
function listen(app: JupyterFrontEnd, parts: IParts): void {
  app.serviceManager.events.stream.connect((_, emission: Event.Emission) => {
    const event = emission as unknown as { schema_id: string; parent?: string };
    if (event.schema_id === LISTING_SCHEMA) {
      parts.tree.hint(event.parent ?? '');
    }
  });
}

/** First the settings, then the first questions; the tree when the sidebar is first seen. */
async function begin(
  parts: IParts,
  settings: ISettingRegistry | null,
  sidebar: Sidebar
): Promise<void> {
  const { preferences, tree, attachments, status } = parts;
  preferences.changed.connect(() => {
    attachments.interval = preferences.pollInterval;
    sidebar.toggleClass('jp-mod-noSizes', !preferences.showSizes);
    sidebar.toggleClass('jp-mod-noFiles', !preferences.showFiles);
    void tree.sort(preferences.sort, preferences.order);
  });
  await preferences.load(settings, PLUGIN_ID);
  await Promise.all([status.start(), attachments.start(), tree.start()]);
}

export default plugin;
