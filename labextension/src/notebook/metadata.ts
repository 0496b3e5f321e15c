/**
 * What a notebook remembers: `dmsp.attachments` in its metadata, the provenance of its variables.
 */
import { INotebookModel } from '@jupyterlab/notebook';
import { isIdentifier } from '../model/names';
import { IProvenance } from '../model/types';

/** The key in the notebook's metadata. */
export const KEY = 'dmsp';

/** At most this many entries of a notebook are believed. */
const LIMIT = 200;

type Model = Pick<INotebookModel, 'getMetadata' | 'setMetadata'>;

/**
 * The entries of a notebook, in order.
 *
 * Whoever wrote the notebook wrote these: an entry with a name that is no identifier or without a DID is left out.
 */
export function readAttachments(model: Model): IProvenance[] {
  const value = model.getMetadata(KEY) as { attachments?: unknown } | undefined;
  const entries = Array.isArray(value?.attachments) ? value.attachments : [];
  return entries
    .slice(0, LIMIT)
    .map(entry => Private.parse(entry))
    .filter((entry): entry is IProvenance => entry !== null);
}

/** Write one entry, in place of that of the same variable. Marks the notebook as changed: only on a user's action. */
export function writeAttachment(model: Model, entry: IProvenance): void {
  Private.update(model, entries => [...entries.filter(e => e.variable !== entry.variable), entry]);
}

/** Complete an entry when the numbers are known; writes nothing when it says so already. */
export function completeAttachment(model: Model, entry: IProvenance): void {
  const known = readAttachments(model).find(e => e.variable === entry.variable);
  if (
    known &&
    known.did === entry.did &&
    (known.files !== entry.files || known.bytes !== entry.bytes || known.digest !== entry.digest)
  ) {
    writeAttachment(model, { ...entry, attached_at: known.attached_at });
  }
}

namespace Private {
  export function parse(value: unknown): IProvenance | null {
    const entry = value as Partial<IProvenance> | null;
    if (
      !entry ||
      typeof entry.did !== 'string' ||
      !entry.did.includes(':') ||
      typeof entry.variable !== 'string' ||
      !isIdentifier(entry.variable)
    ) {
      return null;
    }
    return {
      did: entry.did,
      variable: entry.variable,
      lake: typeof entry.lake === 'string' ? entry.lake : '',
      files: typeof entry.files === 'number' ? entry.files : null,
      bytes: typeof entry.bytes === 'number' ? entry.bytes : null,
      digest: typeof entry.digest === 'string' ? entry.digest : null,
      attached_at: typeof entry.attached_at === 'string' ? entry.attached_at : ''
    };
  }

  /** The object of `getMetadata` is the live one: change a copy. Foreign keys beside ours are kept. */
  export function update(model: Model, change: (entries: IProvenance[]) => IProvenance[]): void {
    const value = (model.getMetadata(KEY) ?? {}) as { [key: string]: unknown };
    const copy = JSON.parse(JSON.stringify(value)) as { [key: string]: unknown };
    copy.attachments = change(readAttachments(model));
    model.setMetadata(KEY, copy);
  }
}
