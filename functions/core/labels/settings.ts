// Which model names clusters, as the stage says it: checked when a stack is synthesised and again when a Lambda starts.
import * as z from 'zod';

/** A server with the chat completions interface of OpenAI: theirs, or vLLM, Ollama, llama.cpp and many others. */
export const OpenAiModel = z.strictObject({
  kind: z.literal('openai'),
  /** Up to and without `/chat/completions`, such as `https://api.openai.com/v1`. */
  base_url: z
    .url({ protocol: /^https?$/, error: 'base_url must be a whole URL, such as https://api.openai.com/v1' })
    .max(2048),
  model: z.string().min(1).max(200),
  /** Secrets Manager name of the key, as plain text; left out for servers that want none. */
  secret_name: z.string().min(1).max(512).optional(),
});
export type OpenAiModel = z.output<typeof OpenAiModel>;

/** Kinds of models that can be configured. */
export const labelModelKinds = ['openai'] as const;

/**
 * The model that a stage configures; undefined for `{}`, where clusters are named by their words.
 *
 * @throws Error that says what is wrong and what is right
 */
export function readLabelModel(value: unknown): OpenAiModel | undefined {
  const fault = findLabelModelFault(value);
  if (fault !== undefined) throw new Error(fault);
  return Object.keys(value as object).length === 0 ? undefined : OpenAiModel.parse(value);
}

/** Why a value cannot be the labelling model of a stage; undefined if it can. */
export function findLabelModelFault(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return 'the labelling model is a JSON object: {} for none, or {"kind": "openai", "base_url", "model", "secret_name"}';
  }
  if (Object.keys(value).length === 0) return undefined;
  const { kind } = value as { kind?: unknown };
  if (kind === 'bedrock') {
    return (
      'a labelling model of the kind "bedrock" cannot be used yet; configure {"kind": "openai", "base_url", "model", "secret_name"}, ' +
      'or {} to name clusters by their words'
    );
  }
  if (!(labelModelKinds as readonly unknown[]).includes(kind)) {
    return `the kind of the labelling model must be one of ${labelModelKinds.join(', ')}, got ${JSON.stringify(kind) ?? 'nothing'}`;
  }
  const checked = OpenAiModel.safeParse(value);
  if (checked.success) return undefined;
  return `the labelling model is wrong: ${checked.error.issues.map((i) => `${i.path.join('.') || 'root'}: ${i.message}`).join('; ')}`;
}
