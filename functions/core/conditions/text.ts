// How texts are compared: case folding that does not depend on position, and the tokens of `text`.

const ascii = /^[\0-\x7f]*$/;
const token =
  /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}]|(?:(?![\p{sc=Han}\p{sc=Hira}\p{sc=Kana}])[\p{L}\p{M}\p{N}])+/gu;

/**
 * Folds case so that two texts that differ in case only become equal: `STRASSE` and `straße`, `ΣΑΣ` and `σας`.
 *
 * Down, up, down: the first step maps letters that have no upper form of their own, the second expands ligatures
 * and sharp s, the third gives the result. Lower-casing looks at the position of a sigma, which would break
 * `contains` and `starts_with`, so both small sigmas become one. No other normalisation is applied.
 */
export function foldCase(text: string): string {
  if (ascii.test(text)) return text.toLowerCase();
  return text.toLowerCase().toUpperCase().toLowerCase().replaceAll('ς', 'σ');
}

/**
 * The distinct tokens of a text: runs of letters, marks and digits; scripts written without spaces (Chinese
 * characters, kana) give one token a character.
 */
export function tokensOf(text: string): Set<string> {
  return new Set(text.match(token) ?? []);
}
