// Which model names clusters, as the stage says it: checked when a stack is synthesised and again when a Lambda starts.
import * as z from 'zod';

const limits = {
  /** Of one prompt, by an estimate that is too high for prose. Fewer clusters or samples are shown rather than more sent. */
  input_tokens_max: z.int().min(1_000).max(200_000).default(20_000),
  /** Of one answer. */
  output_tokens_max: z.int().min(500).max(32_000).default(4_000),
  /** Of all prompts of one run, by the same estimate; clusters beyond keep the names from their words. */
  run_tokens_max: z.int().min(1_000).max(5_000_000).default(200_000),
};

/** A server with the chat completions interface of OpenAI: theirs, or vLLM, Ollama, llama.cpp and many others. */
export const OpenAiLabels = z.strictObject({
  provider: z.literal('openai'),
  /** Up to and without `/chat/completions`, such as `https://api.openai.com/v1`. */
  base_url: z
    .url({ protocol: /^https?$/, error: 'base_url must be a whole URL, such as https://api.openai.com/v1' })
    .max(2048),
  model_id: z.string().min(1).max(200),
  /** Secrets Manager name of the key, as plain text; left out for servers that want none. */
  secret_name: z.string().min(1).max(512).optional(),
  ...limits,
});
export type OpenAiLabels = z.output<typeof OpenAiLabels>;

const Region = z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'a region is written like eu-west-1');

/** How the ids of inference profiles begin: the geography within which they route, before the id of the model. */
const geography = /^(us|us-gov|eu|apac|jp|au|ca|sa|uk|global)\.(?=.)/;

/** A model of Amazon Bedrock, by Converse. */
export const BedrockLabels = z
  .strictObject({
    provider: z.literal('bedrock'),
    /** Of a model (`amazon.nova-lite-v1:0`) or of an inference profile (`eu.amazon.nova-lite-v1:0`). */
    model_id: z
      .string()
      .regex(
        /^[a-z0-9-]+(\.[a-z0-9-]+)+(:[a-z0-9]+)*$/,
        'model_id must be the id of a model or of an inference profile, such as amazon.nova-lite-v1:0 or eu.amazon.nova-lite-v1:0; no ARN',
      )
      .max(200),
    /** Where Bedrock is called; left out: the region of the stack. */
    region: Region.optional(),
    /** Where an inference profile may send a prompt, as the model's page lists it; the role needs the model in each. */
    destination_regions: z.array(Region).min(1).max(50).optional(),
    /** How the answer gets its form: by a tool that must be called, or by a JSON schema where the model can do that. */
    answer: z.enum(['tool', 'json_schema']).default('tool'),
    ...limits,
  })
  .superRefine(({ model_id, destination_regions }, ctx) => {
    const found = geography.exec(model_id)?.[1];
    const issue = (message: string) =>
      ctx.addIssue({ code: 'custom', path: ['destination_regions'], message });
    if (found === undefined && destination_regions !== undefined)
      issue(
        'only an inference profile has destination regions; its model_id begins with a geography such as "eu."',
      );
    if (found === 'global' && destination_regions !== undefined)
      issue('a global inference profile has no list of destination regions');
    if (found !== undefined && found !== 'global' && destination_regions === undefined)
      issue(
        `the inference profile ${model_id} needs them: the regions that its page in the Bedrock guide lists`,
      );
  });
export type BedrockLabels = z.output<typeof BedrockLabels>;

/** What a stage says about names of clusters. */
export const LabelSettings = z.discriminatedUnion(
  'provider',
  [z.strictObject({ provider: z.literal('none') }), OpenAiLabels, BedrockLabels],
  { error: 'provider must be "none", "openai" or "bedrock"' },
);
export type LabelSettings = z.output<typeof LabelSettings>;

/**
 * The model behind an id: that of an inference profile stands after its geography.
 *
 * @returns `profile`: undefined where the id is that of a model; `global`: whether it routes to any region
 */
export function bedrockModel(modelId: string): {
  readonly model: string;
  readonly profile: string | undefined;
  readonly global: boolean;
} {
  const found = geography.exec(modelId);
  if (!found) return { model: modelId, profile: undefined, global: false };
  return { model: modelId.slice(found[0].length), profile: modelId, global: found[1] === 'global' };
}

/** Reads the settings from the environment of a Lambda. @throws Error that says what is wrong */
export function readLabelSettings(json: string): LabelSettings {
  const checked = LabelSettings.safeParse(JSON.parse(json));
  if (checked.success) return checked.data;
  throw new Error(`the settings of labels are wrong: ${z.prettifyError(checked.error)}`);
}
