import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

export interface Column<T> {
  label: string;
  of: (row: T) => ComponentChildren;
  isNumber?: boolean;
}

interface Props<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  keyOf: (row: T) => string;
  nothing: string;
}

/** A part of the page that is a table; `label` is its heading as well. */
export function TableSection<T>(props: Props<T>) {
  const id = useId();
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{props.label}</h2>
      <Table {...props} />
    </section>
  );
}

/** On a phone each row is a card. It keeps the roles of a table, which a change of display takes from it. */
export function Table<T>({ label, columns, rows, keyOf, nothing }: Props<T>) {
  if (rows.length === 0) return <p class="faint">{nothing}</p>;
  return (
    <table role="table" aria-label={label}>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map(({ label, isNumber }) => (
            <th key={label} role="columnheader" scope="col" class={isNumber ? "number" : ""}>
              {label}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((row) => (
          <tr key={keyOf(row)} role="row">
            {columns.map(({ label, of, isNumber }) => (
              <td key={label} role="cell" data-label={label} class={isNumber ? "number" : ""}>
                {of(row)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
