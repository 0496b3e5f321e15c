/**
 * The files of an attachment that do not arrive, each with its reason. The lake is asked when a user opens the list.
 */
import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { asFault } from '../model/api';
import { formatCount } from '../model/format';
import { IAttachment, IFailures, IFault } from '../model/types';
import { Fault } from './common';

/** Whether some of an attachment's files are known not to arrive. */
export function lacksFiles(item: IAttachment): boolean {
  return item.state === 'stuck' || (item.state === 'failed' && item.error?.code === 'not_landed');
}

/** The list, closed at first. What it shows is asked for again when more files have come. */
export function Failures(props: {
  item: IAttachment;
  ask: (id: string) => Promise<IFailures>;
  trans: TranslationBundle;
}): JSX.Element {
  const { item, ask, trans } = props;
  const [open, setOpen] = React.useState(false);
  const [failures, setFailures] = React.useState<IFailures | null>(null);
  const [fault, setFault] = React.useState<IFault | null>(null);
  const [turn, again] = React.useReducer((n: number) => n + 1, 0);
  React.useEffect(() => {
    if (!open) {
      return;
    }
    let current = true;
    setFault(null);
    ask(item.id).then(
      answer => current && setFailures(answer),
      error => current && setFault(asFault(error))
    );
    return () => {
      current = false;
    };
  }, [open, turn, item.id, item.state, item.files_ready]);
  return (
    <details className="jp-DMSP-failures" onToggle={event => setOpen(event.currentTarget.open)}>
      <summary aria-label={trans.__('Files of %1 that do not arrive', item.did)}>
        {trans.__('Which files, and why?')}
      </summary>
      {open && !failures && !fault && (
        <p className="jp-DMSP-empty" role="status">
          {trans.__('Asking the lake…')}
        </p>
      )}
      {fault && (
        <Fault
          fault={{ code: fault.code, message: fault.message, action: 'retry' }}
          trans={trans}
          onRetry={again}
        />
      )}
      {failures && !fault && <List failures={failures} trans={trans} />}
    </details>
  );
}

function List(props: { failures: IFailures; trans: TranslationBundle }): JSX.Element {
  const { failures, trans } = props;
  const more = failures.total - failures.files.length;
  if (failures.total === 0) {
    return <p className="jp-DMSP-empty">{trans.__('None: they are on their way.')}</p>;
  }
  return (
    // it scrolls, and must do so by keyboard too
    <ul className="jp-DMSP-plain" tabIndex={0} aria-label={trans.__('Files that do not arrive')}>
      {failures.files.map(file => (
        <li key={file.did}>
          <strong>{file.did}</strong> {file.reason}
        </li>
      ))}
      {more > 0 && <li>{trans._n('and %2 more', 'and %2 more', more, formatCount(more))}</li>}
    </ul>
  );
}
