// Numbers and times as they are read.

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const minutes = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export const count = (value: number) => compact.format(value);

export const rate = (value: number) => (value < 10 ? value.toFixed(1) : count(Math.round(value)));

export function milliseconds(value: number | null): string {
  if (value === null) return "–";
  if (value < 10) return `${value.toFixed(1)} ms`;
  return value < 1_000 ? `${Math.round(value)} ms` : seconds(value / 1_000);
}

export function seconds(value: number): string {
  if (value < 10) return `${Number(value.toFixed(1))} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7_200) return `${Math.round(value / 60)} min`;
  return value < 172_800 ? `${Math.round(value / 3_600)} h` : `${Math.round(value / 86_400)} d`;
}

export const moment = (text: string) => clock.format(new Date(text));
export const timeOfDay = (at: number) => minutes.format(at);
