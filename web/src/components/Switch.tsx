interface Props<T extends string> {
  label: string;
  options: Record<T, string>;
  value: T;
  onChange: (wanted: T) => void;
}

/** One of two. */
export function Switch<T extends string>({ label, options, value, onChange }: Props<T>) {
  return (
    <div class="switch" role="group" aria-label={label}>
      {(Object.keys(options) as T[]).map((option) => (
        <button key={option} type="button" aria-pressed={option === value} onClick={() => onChange(option)}>
          {options[option]}
        </button>
      ))}
    </div>
  );
}
