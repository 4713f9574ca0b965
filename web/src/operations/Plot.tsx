import { useSignal } from "@preact/signals";
import type { Point } from "./figures";
import { timeOfDay } from "./words";

const WIDTH = 600;
const HEIGHT = 120;
const LEAST_SPAN_MS = 120_000;
const ALONE = 6;

export interface Line {
  name: string;
  of: (point: Point) => number | null | undefined;
}

interface Props {
  title: string;
  points: Point[];
  lines: Line[];
  say: (value: number) => string;
}

/** Lines over time; under the pointer, and else at the end, the legend says what they stand at. */
export function Plot({ title, points, lines, say }: Props) {
  const pointed = useSignal<number | null>(null);
  const known = since(points, lines);
  const end = points.at(-1)?.at ?? Date.now();
  const begin = Math.min(known[0]?.at ?? end, end - LEAST_SPAN_MS);
  const top = roundUp(Math.max(0, ...known.flatMap((point) => lines.map(({ of }) => of(point) ?? 0))));
  const x = (at: number) => ((at - begin) / (end - begin)) * WIDTH;
  const y = (value: number) => HEIGHT - (value / top) * HEIGHT;
  const shown = pointed.value === null ? points.at(-1) : nearest(known, begin + pointed.value * (end - begin));
  const point = (event: PointerEvent) => {
    const { left, width } = (event.currentTarget as Element).getBoundingClientRect();
    pointed.value = (event.clientX - left) / width;
  };
  const values = lines.map(({ name, of }) => ({ name, value: shown && of(shown) }));
  const said = values.map(({ name, value }) => `${name} ${value == null ? "–" : say(value)}`);
  return (
    <figure class="plot">
      <figcaption>
        <h2>{title}</h2>
        <span class="faint">{pointed.value !== null && shown ? timeOfDay(shown.at) : ""}</span>
      </figcaption>
      <ul class="legend">
        {values.map(({ name, value }, place) => (
          <li key={name} class={`line-${place}`}>
            {name} <b>{value == null ? "–" : say(value)}</b>
          </li>
        ))}
      </ul>
      <div class="field">
        <span class="scale">{say(top)}</span>
        <svg
          viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
          preserveAspectRatio="none"
          role="img"
          aria-label={`${title}: ${said.join(", ")}`}
          onPointerMove={point}
          onPointerLeave={() => (pointed.value = null)}
        >
          <path class="grid" d={`M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}`} />
          {lines.map(({ name, of }, place) => (
            <path key={name} class={`line line-${place}`} d={path(known, of, x, y)} />
          ))}
          {pointed.value !== null && shown && <path class="pointed" d={`M${x(shown.at).toFixed(1)} 0V${HEIGHT}`} />}
        </svg>
        <span class="scale">
          <span>{timeOfDay(begin)}</span>
          <span>{timeOfDay(end)}</span>
        </span>
      </div>
    </figure>
  );
}

/** From where on there is something to see. */
function since(points: Point[], lines: Line[]): Point[] {
  const first = points.findIndex((point) => lines.some(({ of }) => of(point)));
  return first < 0 ? points.slice(-1) : points.slice(Math.max(0, first - 1));
}

/** A gap where nothing is known. A point between two gaps is a short line around it, or nobody would see it. */
function path(points: Point[], of: Line["of"], x: (at: number) => number, y: (value: number) => number): string {
  const known = (place: number) => points[place] !== undefined && of(points[place]) != null;
  return points
    .map((point, place) => {
      if (!known(place)) return "";
      const pen = known(place - 1) ? "L" : "M";
      const isAlone = pen === "M" && !known(place + 1);
      return `${pen}${x(point.at).toFixed(1)} ${y(of(point)!).toFixed(1)}${isAlone ? `m${-ALONE / 2} 0h${ALONE}` : ""}`;
    })
    .join("");
}

function nearest(points: Point[], at: number): Point | undefined {
  return points.reduce<Point | undefined>(
    (best, point) => (best && Math.abs(best.at - at) <= Math.abs(point.at - at) ? best : point),
    undefined,
  );
}

/** 1, 2 or 5 times a power of ten, so that the scale does not move with every point. */
function roundUp(value: number): number {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10);
}
