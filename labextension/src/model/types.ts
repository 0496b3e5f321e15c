/**
 * What the server extension answers (`jupyterhub_dmsp/lab/openapi.yaml`).
 */

/** What a row of the tree stands for. */
export type Kind = 'scope' | 'container' | 'dataset' | 'file';

/** How much of a DID is on scratch. */
export type Availability = 'all' | 'part' | 'none' | 'unknown';

/** The keys that children can be sorted by. */
export type SortKey = 'name' | 'bytes' | 'length' | 'created';

/** The directions of a sort. */
export type Order = 'asc' | 'desc';

/** What a user can do about an error. */
export type Action =
  'retry' | 'login' | 'shorten' | 'release' | 'contact' | 'wait' | 'remount' | 'none';

/** An error as one sentence and one way out. */
export interface IFault {
  code: string;
  message: string;
  action: Action;
  request_id?: string;
}

/** One scope, container, dataset or file of a listing. Sizes are bytes, null when unknown. */
export interface IRow {
  kind: Kind;
  scope: string;
  name: string;
  bytes: number | null;
  length: number | null;
  availability: Availability;
  created: string | number | null;
}

/** One page of a listing that may still be growing. */
export interface IPage {
  rows: IRow[];
  total: number;
  complete: boolean;
  snapshot: string;
  error: IFault | null;
}

/** The states of an attachment, as the server's state machine names them. */
export type AttachmentState =
  'requested' | 'replicating' | 'landing' | 'ready' | 'stuck' | 'failed' | 'released';

/** One dataset that was asked for on scratch. Times are seconds or ISO 8601, sizes bytes. */
export interface IAttachment {
  id: string;
  did: string;
  state: AttachmentState;
  seq: number;
  files_total: number | null;
  files_ready: number;
  bytes_total: number | null;
  bytes_ready: number;
  rate_bytes_per_s: number | null;
  eta_s: number | null;
  error: IFault | null;
  rule_id: string | null;
  expires_at: string | number | null;
  variable: string | null;
  updated_at: string | number;
  digest?: string | null;
  /** The directory with readable links to the files, "" before there is one. */
  links?: string | null;
}

/** A file that does not arrive, with a sentence that says why. */
export interface IFailure {
  did: string;
  reason: string;
}

/** The first of the files of an attachment that do not arrive, and how many there are. */
export interface IFailures {
  files: IFailure[];
  total: number;
}

/** The attachments with the server's start number: another epoch, other sequence numbers. */
export interface IAttachments {
  attachments: IAttachment[];
  epoch: string | number;
}

/** The health of the lake, the mount and the token. */
export interface IStatus {
  version: string;
  account: string;
  lake: { name: string; mode: string; ok: boolean; error: IFault | string | null };
  mount: {
    path: string;
    state: 'ok' | 'dead' | 'missing';
    free_bytes: number | null;
    total_bytes: number | null;
  };
  token: { expires_at: string | number | null; error: IFault | string | null };
  rule_lifetime: number | null;
  epoch: string | number;
}

/** A replication rule of a DID. */
export interface IRule {
  id: string;
  rse_expression: string;
  state: string;
  account: string;
  expires_at: string | number | null;
  [key: string]: unknown;
}

/** The state of a DID at one RSE. */
export interface IReplica {
  rse: string;
  state: string;
  available_files: number | null;
  total_files: number | null;
}

/** Everything known about one DID, asked for on demand. */
export interface IDetails {
  scope: string;
  name: string;
  kind: Kind;
  bytes: number | null;
  length: number | null;
  metadata: { [key: string]: unknown };
  rules: IRule[];
  replicas: IReplica[];
  parents: (string | { scope: string; name: string })[];
}

/** Code that binds a variable, by language. */
export type BindingCode = { [language: string]: string };

/** A variable of a notebook and the attachment behind it, as the server keeps it. */
export interface IBinding {
  variable: string;
  attachment: string;
  did?: string;
}

/** What the notebook's metadata keeps about a variable: its provenance. */
export interface IProvenance {
  did: string;
  variable: string;
  lake: string;
  files: number | null;
  bytes: number | null;
  digest: string | null;
  attached_at: string;
}

/** The identifier of a row: a scope's name, or `scope:name`. */
export function didOf(row: Pick<IRow, 'kind' | 'scope' | 'name'>): string {
  return row.kind === 'scope' ? row.scope : `${row.scope}:${row.name}`;
}

/** Whether something of this kind can be attached. */
export function attachable(row: Pick<IRow, 'kind'> | null | undefined): boolean {
  return !!row && row.kind !== 'scope';
}

/** Whether an attachment is still on its way. */
export function moving(attachment: Pick<IAttachment, 'state'>): boolean {
  return ['requested', 'replicating', 'landing'].includes(attachment.state);
}
