/*
 * rendering - the messages of a prompt as the model's tokens, by the model's own chat template.
 * Only the template's pieces may hold special tokens: "<|im_end|>" in somebody's text is plain text.
 */
#ifndef ADAPTER_LLAMA_RENDERING_H
#define ADAPTER_LLAMA_RENDERING_H

#include "adapter/llama/loader.h"
#include "adapter/llama/pieces.h"
#include "adapter/llama/tokens.h"
#include "domain/prompt.h"

/*
 * Render what fits into `budget` tokens: the oldest messages that are not fixed are dropped by prompt_trim().
 *   TR_OK       *out holds the tokens (it must be empty before)
 *   TR_INVALID  the fixed messages alone are too long, or nothing is left to answer
 */
enum tr_rc rendering_build(const struct loaded *l, const struct prompt *prompt, uint32_t budget, struct tokens *out,
                           struct tr_err *err) TR_MUST_CHECK;

/* What the template writes between a reply and the next user message: a reply never holds it. */
void rendering_stops(const struct loaded *l, struct pieces_stops *ret_stops);

#endif
