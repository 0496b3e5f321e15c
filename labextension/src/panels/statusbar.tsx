/**
 * A word in the status bar while something is on its way.
 */
import { TextItem } from '@jupyterlab/statusbar';
import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';
import { AttachmentsModel } from '../model/attachments';
import { IAttachment, moving } from '../model/types';
import { percent } from '../model/format';
import { useChanges } from './common';

/** All that moves as one: how many attachments, and how much of their bytes has come. */
export function summary(items: IAttachment[]): { count: number; percent: number } | null {
  const busy = items.filter(moving);
  if (busy.length === 0) {
    return null;
  }
  const sum = (of: (item: IAttachment) => number) => busy.reduce((n, item) => n + of(item), 0);
  return {
    count: busy.length,
    percent: percent({
      bytes_total: sum(item => item.bytes_total ?? 0),
      bytes_ready: sum(item => item.bytes_ready),
      files_total: sum(item => item.files_total ?? 0),
      files_ready: sum(item => item.files_ready)
    })
  };
}

function Progress(props: {
  model: AttachmentsModel;
  trans: TranslationBundle;
  onClick: () => void;
}): JSX.Element | null {
  const { model, trans, onClick } = props;
  useChanges(model.changed);
  const now = summary(model.items);
  if (!now) {
    return null;
  }
  return (
    <TextItem
      role="button"
      tabIndex={0}
      source={trans._n(
        'Attaching %1 dataset: %2 %',
        'Attaching %1 datasets: %2 %',
        now.count,
        now.percent
      )}
      title={trans.__('Show the Data Lake')}
      onClick={onClick}
      onKeyDown={event => {
        if (event.key === 'Enter' || event.key === ' ') {
          onClick();
        }
      }}
    />
  );
}

/** The item for the status bar. */
export function createStatusItem(
  model: AttachmentsModel,
  trans: TranslationBundle,
  onClick: () => void
): ReactWidget {
  const widget = ReactWidget.create(<Progress model={model} trans={trans} onClick={onClick} />);
  widget.addClass('jp-mod-highlighted');
  return widget;
}
