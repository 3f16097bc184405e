// What a model that names clusters is asked and what it may answer, whoever runs the model.

/** What a model is shown of one cluster. All of it but the id comes from strangers. */
export interface ClusterSample {
  /** `cl_<n>` */
  readonly cluster_id: string;
  readonly num_members: number;
  /** Words that stand out, most important first. */
  readonly keywords: readonly string[];
  /** Texts near the centre of the cluster. */
  readonly samples: readonly string[];
}

export interface LabelOptions {
  readonly summaries: boolean;
  readonly keywords: boolean;
  /** Samples of a cluster that are shown, 1-20. */
  readonly samplesMax: number;
  /** Characters of each sample that are shown, 50-500. */
  readonly sampleCharactersMax: number;
  /** What the user says about the data; undefined: nothing. */
  readonly context?: string | undefined;
}

/** The messages of one call, and the JSON schema that its answer must have. */
export interface LabelPrompt {
  readonly system: string;
  readonly user: string;
  readonly schema: Readonly<Record<string, unknown>>;
}

/** A name and description of a cluster that passed every check. */
export interface ClusterName {
  readonly label: string;
  readonly summary: string | undefined;
  readonly keywords: readonly string[] | undefined;
}

/** What may be sent to a model; tokens as `promptTokens` estimates them. */
export interface LabelLimits {
  /** Of one prompt. */
  readonly promptTokensMax: number;
  /** Of all prompts of a run, those that are sent again included. */
  readonly runTokensMax: number;
}

/** Asks a model once. The answer is text that nobody has checked; what it may cost is capped by the model's own settings. */
export interface LabelModel {
  /** Names provider and model in results and logs. */
  readonly name: string;
  readonly limits: LabelLimits;
  /** @throws LabelModelFailure */
  complete(prompt: LabelPrompt, timeoutMs: number): Promise<string>;
}

/** Why a model gave no usable answer, in words that may be shown to the user: no key, no corpus text. */
export class LabelModelFailure extends Error {
  /** The same request may succeed in a moment. */
  readonly retryable: boolean;
  constructor(message: string, retryable: boolean, cause?: unknown) {
    super(message, { cause });
    this.name = 'LabelModelFailure';
    this.retryable = retryable;
  }
}
