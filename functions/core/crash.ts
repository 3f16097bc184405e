// Named places where a test may kill the process. Outside tests a crash point does nothing at all.

/** Called with the name of each crash point that is passed; throws or exits to simulate a death there. */
export type CrashHook = (point: string) => void;

let hook: CrashHook | undefined;

/** Marks a place between two side effects, so that a test can show that dying there leaves nothing half done. */
export function crash(point: string): void {
  hook?.(point);
}

/** Installs (or with `undefined` removes) the hook. Only tests call this. */
export function setCrashHook(next: CrashHook | undefined): void {
  hook = next;
}
