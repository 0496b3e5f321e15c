/**
 * What a user can do with the lake, whichever way it is asked for: a button, a key, a command.
 */
import { Clipboard, Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { LakeApi, asFault } from './model/api';
import { AttachmentsModel } from './model/attachments';
import { formatSeconds } from './model/format';
import { refuses, checkName } from './model/names';
import { StatusModel } from './model/status';
import { IAttachment, IRow, didOf } from './model/types';
import { NotebookLink } from './notebook/link';
import { Notebooks } from './notebook/notebooks';
import { AttachForm, ISubject, askAttach } from './panels/dialog';

/** How long an extension lasts when the lake names no lifetime, in seconds. */
const MONTH = 30 * 86400;

/** The parts that actions work with. */
export interface ILakeParts {
  api: LakeApi;
  attachments: AttachmentsModel;
  notebooks: Notebooks;
  status: StatusModel;
  trans: TranslationBundle;
}

/** The actions. Failures become notifications: none is lost. */
export class LakeActions {
  constructor(private _parts: ILakeParts) {}

  /** Ask for a name and attach a row of the tree, or a DID without more knowledge. */
  async attach(row: IRow): Promise<void> {
    await this._guard(async () => {
      const { attachments, notebooks, status, trans } = this._parts;
      const link = notebooks.current;
      const language = link ? await this._language(link) : 'python';
      const form = new AttachForm(subjectOf(row, attachments), language, link?.title ?? null);
      form.propose(fallbackName(row.name));
      form.learn({ status: status.status });
      void status.refresh().then(
        () => form.learn({ status: status.status }),
        () => undefined // the banner tells
      );
      void this._propose(form, link);
      const choice = await askAttach(form, trans);
      if (choice) {
        await this.attachAs(form.subject.did, choice.variable, choice.lifetime, link);
      }
    });
  }

  /** Attach without asking. */
  async attachAs(
    did: string,
    variable: string | undefined,
    lifetime: number | null,
    link: NotebookLink | null = this._parts.notebooks.current
  ): Promise<void> {
    await this._guard(async () => {
      const name = variable ?? (await this._suggest(did, link));
      const attachment = await this._parts.attachments.attach({
        did,
        variable: name,
        notebook: link?.path,
        lifetime: lifetime ?? undefined
      });
      link?.add(attachment, name);
    });
  }

  /** Set an attachment's variable in the current notebook and insert a cell that uses it. */
  async insert(attachment: IAttachment): Promise<void> {
    await this._guard(async () => {
      const link = this._parts.notebooks.current;
      if (!link) {
        return;
      }
      const use = this._parts.notebooks.uses(attachment.id).find(item => item.link === link);
      const name =
        use?.variable.name ?? attachment.variable ?? (await this._suggest(attachment.did, link));
      if (!use) {
        link.add(attachment, name);
      }
      await link.insertCell(name);
    });
  }

  /** Cancel what is on its way; release what is there, after a question. */
  async release(attachment: IAttachment): Promise<void> {
    const { trans, attachments, notebooks } = this._parts;
    if (attachment.state === 'ready') {
      const answer = await showDialog({
        title: trans.__('Release %1?', attachment.did),
        body: trans.__('Its files leave scratch when nobody else needs them.'),
        buttons: [
          Dialog.cancelButton({ label: trans.__('Cancel') }),
          Dialog.warnButton({ label: trans.__('Release') })
        ]
      });
      if (!answer.button.accept) {
        return;
      }
    }
    await this._guard(async () => {
      await attachments.release(attachment.id);
      await Promise.all(notebooks.links.map(link => link.drop(attachment.id)));
    });
  }

  /** Try again. */
  async retry(attachment: IAttachment): Promise<void> {
    await this._guard(() => this._parts.attachments.retry(attachment.id));
  }

  /** Keep it for the lake's usual time from now. */
  async extend(attachment: IAttachment): Promise<void> {
    await this._guard(async () => {
      const { trans, attachments, status } = this._parts;
      const lifetime = status.status?.rule_lifetime ?? MONTH;
      await attachments.extend(attachment.id, lifetime);
      const text = trans.__('%1 is kept for %2.', attachment.did, formatSeconds(lifetime));
      Notification.success(text, { autoClose: 3000 });
    });
  }

  /** Copy a DID. */
  copyDid(row: IRow): void {
    Clipboard.copyToSystem(didOf(row));
  }

  /** Copy the path on scratch of a DID that is attached and ready. */
  async copyPath(row: IRow): Promise<void> {
    await this._guard(async () => {
      const { trans, attachments } = this._parts;
      const path = attachments.ofDid(didOf(row))?.links;
      if (!path) {
        throw new Error(trans.__('%1 has no path yet: attach it first.', didOf(row)));
      }
      Clipboard.copyToSystem(path);
    });
  }

  /** The language of a notebook, patient only for a moment: a dialog waits for it. */
  private async _language(link: NotebookLink): Promise<string> {
    const asked = link.language().catch(() => 'python');
    return (await soon(asked, 'python')) || 'python';
  }

  private async _propose(form: AttachForm, link: NotebookLink | null): Promise<void> {
    try {
      const asked = link?.names() ?? Promise.resolve(new Set<string>());
      asked.then(
        taken => form.learn({ taken }), // late answers count too
        () => undefined
      );
      const taken = await soon(asked, new Set<string>());
      form.propose(await this._parts.api.suggest(form.subject.did, [...taken], form.language));
    } catch {
      // the name that was made here stays
    }
  }

  private async _suggest(did: string, link: NotebookLink | null): Promise<string> {
    const taken = link ? await soon(link.names(), new Set<string>()) : [];
    const language = link ? await this._language(link) : 'python';
    return this._parts.api.suggest(did, [...taken], language);
  }

  private async _guard(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      const fault = asFault(error);
      if (fault.action === 'login') {
        // The status says it, with the way out.
        void this._parts.status.refresh().catch(() => undefined);
      } else {
        Notification.error(fault.message, { autoClose: 8000 });
      }
    }
  }
}

/** The answer if it comes within a second, else what stands in for it. */
function soon<T>(answer: Promise<T>, otherwise: T): Promise<T> {
  const patience = new Promise<T>(resolve => setTimeout(() => resolve(otherwise), 1000));
  return Promise.race([answer, patience]);
}

/** A name made from a DID's name, until the server has proposed a better one. */
export function fallbackName(name: string): string {
  const parts = name.split(/[./]/).filter(part => part);
  const stem = (parts.length > 1 && name.includes('.') ? parts[parts.length - 2] : parts[0]) ?? '';
  const text = stem.replace(/[^A-Za-z0-9_]+/g, '_').replace(/^_+|_+$/g, '');
  const named = /^[A-Za-z_]/.test(text) ? text : `data_${text}`.replace(/_$/, '');
  return refuses(checkName(named, new Set())) ? `${named}_data` : named.slice(0, 60);
}

function subjectOf(row: IRow, attachments: AttachmentsModel): ISubject {
  const did = didOf(row);
  const here = row.availability === 'all' || attachments.ofDid(did)?.state === 'ready';
  const files = row.kind === 'file' ? 1 : row.length;
  return { did, kind: row.kind, bytes: row.bytes, files, here };
}
