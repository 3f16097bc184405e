// A client of the chat completions interface, over the one module that may call URLs.
import * as z from 'zod';
import { EgressFailure, send } from '../egress/send.ts';
import type { LabelModel, LabelPrompt } from './label-model.ts';
import { LabelModelFailure } from './label-model.ts';
import type { OpenAiLabels } from './settings.ts';

const answerBytesMax = 1_000_000;
const connectTimeoutMs = 10_000;

const Completion = z.object({
  choices: z
    .array(
      z.object({ message: z.object({ content: z.string().nullish() }), finish_reason: z.string().nullish() }),
    )
    .min(1),
});

export interface OpenAiOptions {
  /** Reads the key; undefined: the server wants none. */
  readonly apiKey?: (() => Promise<string>) | undefined;
  /** Only the local stage may have a model on loopback. */
  readonly allowLoopback: boolean;
}

/** @param settings as the stage configures them */
export function openAiLabelModel(settings: OpenAiLabels, options: OpenAiOptions): LabelModel {
  const url = `${settings.base_url.replace(/\/+$/, '')}/chat/completions`;
  const host = new URL(url).host;
  return {
    name: `openai:${settings.model_id}`,
    limits: { promptTokensMax: settings.input_tokens_max, runTokensMax: settings.run_tokens_max },
    async complete(prompt, timeoutMs) {
      const key = await options.apiKey?.();
      const answer = await post(
        url,
        {
          'Content-Type': 'application/json',
          Accept: 'application/json',
          ...(key === undefined ? {} : { Authorization: `Bearer ${key.trim()}` }),
        },
        JSON.stringify(requestBody(settings, prompt)),
        timeoutMs,
        options.allowLoopback,
      );
      if (answer.status < 200 || answer.status > 299) {
        const busy = answer.status === 429 || answer.status >= 500;
        throw new LabelModelFailure(
          `The labelling model at ${host} answered with status ${answer.status}.`,
          busy,
        );
      }
      if (answer.truncated)
        throw new LabelModelFailure(`The answer of ${host} is longer than ${answerBytesMax} bytes.`, false);
      return contentOf(Buffer.from(answer.body).toString('utf8'), host, settings.output_tokens_max);
    },
  };
}

async function post(
  url: string,
  headers: Record<string, string>,
  body: string,
  timeoutMs: number,
  allowLoopback: boolean,
) {
  try {
    return await send({
      method: 'POST',
      url,
      headers,
      body,
      connectTimeoutMs,
      totalTimeoutMs: timeoutMs,
      answerBytesMax,
      allowLoopback,
    });
  } catch (error) {
    if (!(error instanceof EgressFailure)) throw error;
    throw new LabelModelFailure(
      `The labelling model cannot be reached: ${error.message}.`,
      error.reason !== 'refused_target',
      error,
    );
  }
}

/** No tools, no streaming, nothing that lets an answer do more than be text. */
function requestBody(settings: OpenAiLabels, prompt: LabelPrompt): unknown {
  return {
    model: settings.model_id,
    messages: [
      { role: 'system', content: prompt.system },
      { role: 'user', content: prompt.user },
    ],
    temperature: 0,
    max_completion_tokens: settings.output_tokens_max,
    response_format: {
      type: 'json_schema',
      json_schema: { name: 'cluster_names', strict: true, schema: prompt.schema },
    },
  };
}

function contentOf(text: string, host: string, answerTokensMax: number): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new LabelModelFailure(`${host} did not answer with JSON.`, false, error);
  }
  const completion = Completion.safeParse(value);
  if (!completion.success)
    throw new LabelModelFailure(`${host} did not answer with a chat completion.`, false);
  const { message, finish_reason } = completion.data.choices[0]!;
  if (finish_reason === 'length')
    throw new LabelModelFailure(`The answer of ${host} was cut off at ${answerTokensMax} tokens.`, false);
  if (!message.content) throw new LabelModelFailure(`${host} answered without a text.`, false);
  return message.content;
}
