// A model of Amazon Bedrock that names clusters, by Converse: one call, no conversation, no tool but the form of the answer.
import type { ConverseCommandInput, ConverseCommandOutput } from '@aws-sdk/client-bedrock-runtime';
import { BedrockRuntimeClient, ConverseCommand } from '@aws-sdk/client-bedrock-runtime';
import type { LabelModel, LabelPrompt } from '../labels/label-model.ts';
import { LabelModelFailure } from '../labels/label-model.ts';
import type { BedrockLabels } from '../labels/settings.ts';
import { outageNames, throttleNames } from './faults.ts';

const toolName = 'name_clusters';
/** As much as any answer within its tokens can have. */
const answerCharactersMax = 1_000_000;

/** Errors of Bedrock that pass. */
const passing = new Set([
  ...throttleNames,
  ...outageNames,
  'ModelNotReadyException',
  'ModelTimeoutException',
  'ServiceQuotaExceededException',
]);

const stopReasons: Readonly<Record<string, string>> = {
  content_filtered: 'withheld its answer by a content filter',
  guardrail_intervened: 'withheld its answer by a guardrail',
  malformed_model_output: 'gave an answer without form',
  malformed_tool_use: 'gave an answer without form',
  model_context_window_exceeded: 'takes no prompt of this length',
};

/** @param client undefined: one for the region of the settings, else of the Lambda */
export function bedrockLabelModel(settings: BedrockLabels, client?: BedrockRuntimeClient): LabelModel {
  const sender =
    client ??
    new BedrockRuntimeClient({
      ...(settings.region === undefined ? {} : { region: settings.region }),
      // Whoever asks decides when to ask again, and counts what that costs.
      maxAttempts: 1,
    });
  return {
    name: `bedrock:${settings.model_id}`,
    limits: { promptTokensMax: settings.input_tokens_max, runTokensMax: settings.run_tokens_max },
    async complete(prompt, timeoutMs) {
      const abort = AbortSignal.timeout(timeoutMs);
      let answer: ConverseCommandOutput;
      try {
        answer = await sender.send(new ConverseCommand(requestOf(settings, prompt)), { abortSignal: abort });
      } catch (error) {
        throw failureOf(error, settings.model_id, abort.aborted ? timeoutMs : undefined);
      }
      return textOf(answer, settings);
    },
  };
}

function requestOf(settings: BedrockLabels, prompt: LabelPrompt): ConverseCommandInput {
  const common = {
    modelId: settings.model_id,
    system: [{ text: prompt.system }],
    messages: [{ role: 'user' as const, content: [{ text: prompt.user }] }],
    inferenceConfig: { maxTokens: settings.output_tokens_max, temperature: 0 },
  };
  if (settings.answer === 'json_schema') {
    const jsonSchema = { name: toolName, schema: JSON.stringify(prompt.schema) };
    return { ...common, outputConfig: { textFormat: { type: 'json_schema', structure: { jsonSchema } } } };
  }
  const toolSpec = {
    name: toolName,
    description: 'Takes the names of the groups. It is the only way to answer, and does nothing else.',
    // The SDK wants a mutable document.
    inputSchema: { json: JSON.parse(JSON.stringify(prompt.schema)) },
  };
  return { ...common, toolConfig: { tools: [{ toolSpec }], toolChoice: { tool: { name: toolName } } } };
}

/** The service's own words stay out: they may repeat the prompt. */
function failureOf(error: unknown, modelId: string, timedOutMs: number | undefined): LabelModelFailure {
  const { name = '', code = '' } = (error ?? {}) as { name?: string; code?: string };
  const model = `The labelling model ${modelId}`;
  if (timedOutMs !== undefined)
    return new LabelModelFailure(`${model} did not answer within ${timedOutMs} ms.`, true, error);
  if (name === 'AccessDeniedException')
    return new LabelModelFailure(
      `${model} may not be used: the account has no access to it, or the role of the stage does not name it.`,
      false,
      error,
    );
  if (name === 'ResourceNotFoundException')
    return new LabelModelFailure(`${model} does not exist in its region.`, false, error);
  if (name === 'ValidationException')
    return new LabelModelFailure(
      `${model} refused the request (ValidationException): perhaps it takes no forced tool call or JSON schema, or only comes by an inference profile.`,
      false,
      error,
    );
  const passes = passing.has(name) || passing.has(code);
  return new LabelModelFailure(`${model} failed: ${name || code || 'unknown error'}.`, passes, error);
}

function textOf(answer: ConverseCommandOutput, settings: BedrockLabels): string {
  const model = `The labelling model ${settings.model_id}`;
  const { stopReason } = answer;
  if (stopReason === 'max_tokens')
    throw new LabelModelFailure(`${model} was cut off at ${settings.output_tokens_max} tokens.`, false);
  const stopped = stopReason === undefined ? undefined : stopReasons[stopReason];
  if (stopped !== undefined) throw new LabelModelFailure(`${model} ${stopped}.`, false);
  const blocks = answer.output?.message?.content ?? [];
  const text =
    settings.answer === 'json_schema'
      ? blocks.map((block) => block.text ?? '').join('')
      : toolInput(
          blocks.flatMap((block) => (block.toolUse ? [block.toolUse] : [])),
          model,
        );
  if (text === '') throw new LabelModelFailure(`${model} answered without a text.`, false);
  if (text.length > answerCharactersMax)
    throw new LabelModelFailure(`${model} answered with more than ${answerCharactersMax} characters.`, false);
  return text;
}

/** The input of the one call that was asked for. Nothing is done with others, and no tool is run. */
function toolInput(
  calls: readonly { readonly name?: string | undefined; readonly input?: unknown }[],
  model: string,
): string {
  const ours = calls.filter((call) => call.name === toolName);
  if (ours.length !== 1)
    throw new LabelModelFailure(`${model} did not answer in the form that it was asked for.`, false);
  return JSON.stringify(ours[0]!.input ?? null);
}
