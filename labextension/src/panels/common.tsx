/**
 * Small parts that several panels share.
 */
import { PageConfig, URLExt } from '@jupyterlab/coreutils';
import { TranslationBundle } from '@jupyterlab/translation';
import { ISignal } from '@lumino/signaling';
import * as React from 'react';
import { Glyph } from '../icons';
import { AttachmentState, Availability, IFault, Kind } from '../model/types';

/** Render again whenever one of the signals is emitted. */
export function useChanges(...signals: ISignal<unknown, unknown>[]): void {
  const [, update] = React.useReducer((n: number) => n + 1, 0);
  React.useEffect(() => {
    const slot = () => update();
    signals.forEach(signal => signal.connect(slot));
    slot(); // what changed between the first rendering and now
    return () => signals.forEach(signal => signal.disconnect(slot));
  }, signals);
}

/** The availability in words. */
export function availabilityText(availability: Availability, trans: TranslationBundle): string {
  switch (availability) {
    case 'all':
      return trans.__('On scratch');
    case 'part':
      return trans.__('Partly');
    case 'none':
      return trans.__('In the lake');
    default:
      return trans.__('Unknown');
  }
}

/** The kind of a row in words. */
export function kindText(kind: Kind, trans: TranslationBundle): string {
  switch (kind) {
    case 'scope':
      return trans.__('scope');
    case 'container':
      return trans.__('container');
    case 'dataset':
      return trans.__('dataset');
    default:
      return trans.__('file');
  }
}

/** The state of an attachment in words. */
export function stateText(state: AttachmentState, trans: TranslationBundle): string {
  switch (state) {
    case 'requested':
      return trans.__('Requested');
    case 'replicating':
      return trans.__('Replicating');
    case 'landing':
      return trans.__('Landing');
    case 'ready':
      return trans.__('Ready');
    case 'stuck':
      return trans.__('Stuck');
    case 'failed':
      return trans.__('Failed');
    default:
      return trans.__('Released');
  }
}

/** Send the user through the hub's login again, in another tab: what is open here stays. */
export function logIn(): void {
  const prefix = PageConfig.getOption('hubPrefix');
  if (!prefix) {
    window.location.reload();
    return;
  }
  const host = PageConfig.getOption('hubHost');
  // A page that says so, not a second Lab on the same workspace.
  const next = encodeURIComponent(URLExt.join(prefix, 'dmsp/logged-in'));
  window.open(`${host}${URLExt.join(prefix, 'oauth_login')}?next=${next}`, '_blank', 'noopener');
}

/** An error as one sentence and, where there is a way out, one button. */
export function Fault(props: {
  fault: IFault;
  trans: TranslationBundle;
  onRetry?: () => void;
  retryName?: string;
}): JSX.Element {
  const { fault, trans, onRetry, retryName } = props;
  const tried = ['retry', 'wait', 'remount'].includes(fault.action);
  return (
    <div
      role="alert"
      className="jp-DMSP-fault"
      data-code={fault.code}
      title={fault.request_id ? trans.__('Request %1', fault.request_id) : undefined}
    >
      <Glyph shape="warning" />
      <span className="jp-DMSP-faultText">{fault.message}</span>
      {fault.action === 'login' && (
        <button type="button" className="jp-DMSP-button" onClick={logIn}>
          {trans.__('Log in again')}
        </button>
      )}
      {tried && onRetry && (
        <button type="button" className="jp-DMSP-button" aria-label={retryName} onClick={onRetry}>
          {trans.__('Retry')}
        </button>
      )}
    </div>
  );
}
