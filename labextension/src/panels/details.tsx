/**
 * Everything about one DID: metadata, rules, replicas. Asked for on demand.
 */
import { ReactWidget } from '@jupyterlab/ui-components';
import { TranslationBundle } from '@jupyterlab/translation';
import { ISignal, Signal } from '@lumino/signaling';
import * as React from 'react';
import { LakeApi, asFault } from '../model/api';
import { formatBytes, formatCount, formatTime } from '../model/format';
import { IDetails, IFault } from '../model/types';
import { Fault, kindText, useChanges } from './common';

/** The DID that is looked at. */
export class DetailsModel {
  did = '';
  details: IDetails | null = null;
  fault: IFault | null = null;
  private _changed = new Signal<this, void>(this);

  constructor(private _api: LakeApi) {}

  /** Emitted when another DID or its answer is here. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Look at a DID. */
  async show(did: string): Promise<void> {
    this.did = did;
    this.details = null;
    this.fault = null;
    this._changed.emit();
    try {
      const details = await this._api.details(did);
      if (this.did === did) {
        this.details = details;
      }
    } catch (error) {
      if (this.did === did) {
        this.fault = asFault(error);
      }
    }
    this._changed.emit();
  }
}

function Details(props: { model: DetailsModel; trans: TranslationBundle }): JSX.Element | null {
  const { model, trans } = props;
  useChanges(model.changed);
  if (!model.did) {
    return null;
  }
  const { details, fault } = model;
  return (
    <section aria-label={trans.__('Details of %1', model.did)}>
      <h4 className="jp-DMSP-did">{model.did}</h4>
      {fault && <Fault fault={fault} trans={trans} onRetry={() => void model.show(model.did)} />}
      {!fault && !details && <p className="jp-DMSP-empty">{trans.__('Loading…')}</p>}
      {details && <Facts details={details} trans={trans} />}
    </section>
  );
}

function Facts(props: { details: IDetails; trans: TranslationBundle }): JSX.Element {
  const { details, trans } = props;
  const metadata = Object.entries(details.metadata).filter(([, value]) => value !== null);
  return (
    <>
      <dl className="jp-DMSP-facts">
        <dt>{trans.__('Kind')}</dt>
        <dd>{kindText(details.kind, trans)}</dd>
        <dt>{trans.__('Size')}</dt>
        <dd>{formatBytes(details.bytes)}</dd>
        {details.kind !== 'file' && (
          <>
            <dt>{trans.__('Files')}</dt>
            <dd>{formatCount(details.length)}</dd>
          </>
        )}
        {details.parents.length > 0 && (
          <>
            <dt>{trans.__('Part of')}</dt>
            <dd>{details.parents.map(parentText).join(', ')}</dd>
          </>
        )}
        {metadata.map(([key, value]) => (
          <React.Fragment key={key}>
            <dt>{key}</dt>
            <dd>{typeof value === 'object' ? JSON.stringify(value) : String(value)}</dd>
          </React.Fragment>
        ))}
      </dl>
      <h5>{trans.__('Replicas')}</h5>
      {details.replicas.length === 0 && (
        <p className="jp-DMSP-empty">{trans.__('No complete copy is known.')}</p>
      )}
      <ul className="jp-DMSP-plain">
        {details.replicas.map(replica => (
          <li key={replica.rse}>
            <strong>{replica.rse}</strong> {replica.state.toLowerCase()}
            {replica.total_files !== null &&
              ` (${trans.__('%1 of %2 files', formatCount(replica.available_files), formatCount(replica.total_files))})`}
          </li>
        ))}
      </ul>
      <h5>{trans.__('Rules')}</h5>
      {details.rules.length === 0 && (
        <p className="jp-DMSP-empty">{trans.__('No rule keeps it anywhere.')}</p>
      )}
      <ul className="jp-DMSP-plain">
        {details.rules.map(rule => (
          <li key={rule.id} title={rule.id}>
            <strong>{rule.rse_expression}</strong> {rule.state.toLowerCase()}, {rule.account}
            {rule.expires_at !== null && `, ${trans.__('until %1', formatTime(rule.expires_at))}`}
          </li>
        ))}
      </ul>
    </>
  );
}

function parentText(parent: string | { scope: string; name: string }): string {
  return typeof parent === 'string' ? parent : `${parent.scope}:${parent.name}`;
}

/** The widget around it. */
export function createDetails(model: DetailsModel, trans: TranslationBundle): ReactWidget {
  const widget = ReactWidget.create(<Details model={model} trans={trans} />);
  widget.addClass('jp-DMSP-details');
  return widget;
}
