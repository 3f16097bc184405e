# The nine steps in our own words, with the wire formats of the public tutorial; test/tutorial/tutorial.test.ts runs it.
# Set before it: API_KEY, NS_ID, BASE_URL. The working folder holds the plugin's folder (step 1).

# Step 2: pack the plugin, ask where to put it, put it there, have it checked
zip -q -r word_embed.zip word_embed/

UPLOAD=$(curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/plugins/uploads" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"name": "word_embed", "version": "1.0.0", "file_size_bytes": 4096}')

UPLOAD_ID=$(echo "$UPLOAD" | jq -r '.upload_id')

PRESIGNED_URL=$(echo "$UPLOAD" | jq -r '.presigned_url')

curl -s -X PUT "$PRESIGNED_URL" \
  -H "Content-Type: application/zip" \
  --data-binary @word_embed.zip

curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/plugins/uploads/$UPLOAD_ID/confirm" \
  -H "Authorization: Bearer $API_KEY"

# Step 3: make it usable
PLUGIN_ID="word_embed_1_0_0"

curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/plugins/$PLUGIN_ID/deploy?deployment_type=batch_only" \
  -H "Authorization: Bearer $API_KEY"

# Step 4: a bucket, and something in it
BUCKET=$(curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/buckets" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"name": "recipes", "bucket_schema": {"properties": {"text": {"type": "text", "required": true}}}}')

BUCKET_ID=$(echo "$BUCKET" | jq -r '.bucket_id')

curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/buckets/$BUCKET_ID/objects" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"blobs": [{"property": "text", "type": "text", "data": "Knead the dough until it is smooth, then let it rest under a cloth."}]}'

# Step 5: a collection over the bucket, and a batch to fill it
COLLECTION=$(curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/collections" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d "{
    \"name\": \"recipe_words\",
    \"feature_extractors\": [{\"feature_extractor_name\": \"word_embed\", \"version\": \"1.0.0\"}],
    \"source\": {\"type\": \"bucket\", \"bucket_ids\": [\"$BUCKET_ID\"]}
  }")

COLLECTION_ID=$(echo "$COLLECTION" | jq -r '.collection_id')

BATCH=$(curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/buckets/$BUCKET_ID/batches/trigger" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d "{\"collection_ids\": [\"$COLLECTION_ID\"]}")

BATCH_ID=$(echo "$BATCH" | jq -r '.batch_id')

while true; do
  STATUS=$(curl -s "$BASE_URL/v1/namespaces/$NS_ID/buckets/$BUCKET_ID/batches/$BATCH_ID" \
    -H "Authorization: Bearer $API_KEY" | jq -r '.status')
  echo "$BATCH_ID is $STATUS"
  case "$STATUS" in COMPLETED | FAILED) break ;; esac
  sleep 10
done

# Step 6: search by text
RETRIEVER=$(curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/retrievers" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d "{
    \"name\": \"recipe_search\",
    \"stages\": [{
      \"stage_name\": \"by_words\",
      \"stage_type\": \"filter\",
      \"config\": {
        \"stage_id\": \"feature_search\",
        \"parameters\": {
          \"searches\": [{
            \"feature_uri\": \"mixpeek://word_embed@1.0.0/word_embed_v1_embedding\",
            \"query\": \"{{INPUT.query}}\"
          }]
        }
      }
    }]
  }")

RETRIEVER_ID=$(echo "$RETRIEVER" | jq -r '.retriever_id')

curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/retrievers/$RETRIEVER_ID/execute" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"input": {"query": "smooth dough"}}' | jq '.results[:3]'

# Step 7: let labelled documents name the others
curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/taxonomies" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d "{
    \"taxonomy_name\": \"recipe-topics\",
    \"taxonomy_type\": \"flat\",
    \"retriever_id\": \"$RETRIEVER_ID\",
    \"collection_id\": \"$COLLECTION_ID\",
    \"input_mappings\": [{\"source\": \"payload.text\", \"target\": \"query\"}],
    \"enrichment_fields\": [{\"source\": \"payload.topic\", \"target\": \"auto_topic\"}],
    \"threshold\": 0.6,
    \"execution_mode\": \"materialize\"
  }"

# Step 8: groups
curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/clusters" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d "{
    \"cluster_name\": \"recipe-themes\",
    \"collection_id\": \"$COLLECTION_ID\",
    \"feature_uri\": \"mixpeek://word_embed@1.0.0/word_embed_v1_embedding\",
    \"algorithm\": {\"name\": \"hdbscan\", \"params\": {\"min_cluster_size\": 3}},
    \"llm_labeling\": {\"enabled\": true},
    \"dimension_reduction\": {\"method\": \"umap\", \"n_components\": 2}
  }"

# Step 9: be told
curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/alerts" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d "{
    \"alert_name\": \"baking-recipes\",
    \"collection_id\": \"$COLLECTION_ID\",
    \"condition\": {\"field\": \"metadata.auto_topic\", \"operator\": \"eq\", \"value\": \"baking\"},
    \"notification\": {\"type\": \"webhook\", \"url\": \"https://example.com/hooks/recipes\"}
  }"

curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/webhooks" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "webhook_name": "recipe-events",
    "url": "https://example.com/hooks/recipes",
    "events": ["batch.completed", "batch.failed"]
  }'
