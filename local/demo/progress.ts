// What a person sees while things run: one line per step with its time; a live line on a terminal, plain lines elsewhere.

const live = process.stdout.isTTY === true && process.env.TERM !== 'dumb';
const colour = live && process.env.NO_COLOR === undefined;
const paint = (code: number, text: string) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);

export const bold = (text: string): string => paint(1, text);
export const dim = (text: string): string => paint(2, text);
export const green = (text: string): string => paint(32, text);
export const red = (text: string): string => paint(31, text);

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** A bar of `width` cells for a share of 0..1. */
export function bar(share: number, width = 24): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return `${'#'.repeat(full)}${'.'.repeat(width - full)}`;
}

export interface Step {
  /** Replaces what stands behind the step's name; shown live on a terminal only. */
  note(text: string): void;
}

/** Lines beyond the window would wrap, and then the cursor could not come back to their begin. */
function fit(text: string): string {
  const columns = process.stdout.columns ?? 100;
  return text.length < columns ? text : `${text.slice(0, columns - 2)}…`;
}

/**
 * Runs a step: shows its name while it runs, then the name with what it did and how long it took.
 *
 * @param work returns what it did, in a few words, and its result.
 */
export async function step<T>(name: string, work: (step: Step) => Promise<readonly [string, T]>): Promise<T> {
  const startedMs = performance.now();
  let text = '';
  const draw = () =>
    process.stdout.write(
      `\r\u001b[2K${fit(`  … ${name} ${text} (${seconds(performance.now() - startedMs)})`)}`,
    );
  const timer = live ? setInterval(draw, 100) : undefined;
  if (live) draw();
  const clear = () => {
    clearInterval(timer);
    if (live) process.stdout.write('\r\u001b[2K');
  };
  try {
    const [done, result] = await work({ note: (next) => (text = next) });
    clear();
    console.log(`  ${green('ok')} ${name}: ${done} ${dim(`(${seconds(performance.now() - startedMs)})`)}`);
    return result;
  } catch (error) {
    clear();
    console.log(`  ${red('failed')} ${name} after ${seconds(performance.now() - startedMs)}`);
    throw error;
  }
}

export function heading(text: string): void {
  console.log(`\n${bold(text)}`);
}
