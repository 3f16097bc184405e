// Ids as the service makes them.

/** Id of a plugin version: `text_embed_1_0_0`. */
export const pluginId = (plugin: { readonly name: string | null; readonly version: string | null }): string =>
  `${plugin.name}_${plugin.version?.replaceAll('.', '_')}`;
