import { IAttachment } from '../model/types';

/** An attachment as the server tells of it, with changes. */
export function attachment(change: Partial<IAttachment> = {}): IAttachment {
  return {
    id: 'x',
    did: 'a:b',
    state: 'replicating',
    seq: 1,
    files_total: 10,
    files_ready: 0,
    bytes_total: 100,
    bytes_ready: 0,
    rate_bytes_per_s: null,
    eta_s: null,
    error: null,
    rule_id: null,
    expires_at: null,
    variable: 'b',
    updated_at: 0,
    ...change
  };
}
