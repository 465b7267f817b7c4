/* generation - see generation.h. */
#include "adapter/llama/generation.h"

#include "adapter/llama/rendering.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define MARGIN 8        /* tokens of the context that stay free */
#define TOP_K 100       /* of the candidates, before the finer choice */
#define REPEAT_LAST 128 /* tokens that are made a little less likely to come again */
#define REPEAT_PENALTY 1.1f

/* llama_decode() */
enum { DECODED = 0, NO_ROOM = 1, ABORTED = 2 };

/* One reply under way. */
struct reply {
    struct generator *g;
    struct sequence *seq;
    struct llama_sampler *sampler; /* owned */
    struct pieces pieces;
    struct buf out;
    uint32_t max_tokens;
    bool penalise;
};

static bool timed_out(const struct generator *g)
{
    return g->timeout_ns != 0 && mono_ns() > g->deadline_ns;
}

static void sign_of_life(struct generator *g)
{
    g->deadline_ns = mono_ns() + g->timeout_ns;
}

/* libllama asks this between the steps of its computation. */
static bool on_abort(void *ctx)
{
    const struct generator *g = ctx;

    return g->io != NULL && (g->io->wish(g->io->ctx) != GENERATION_GO_ON || timed_out(g));
}

enum tr_rc generator_init(struct generator *g, struct loaded *loaded, struct tr_err *err)
{
    enum tr_rc rc;

    *g = (struct generator){.loaded = *loaded};
    *loaded = (struct loaded){0};
    rc = sequences_init(&g->sequences, &g->loaded, err);
    if (rc != TR_OK) {
        generator_release(g);
        return rc;
    }
    g->batch = llama_batch_init(LOADER_BATCH, 0, 1);
    rendering_stops(&g->loaded, &g->stops);
    threads_init(&g->threads, &g->loaded);
    llama_set_abort_callback(g->loaded.ctx, on_abort, g);
    return TR_OK;
}

void generator_release(struct generator *g)
{
    sequences_release(&g->sequences);
    if (g->batch.token != NULL) {
        explicit_bzero(g->batch.token, LOADER_BATCH * sizeof *g->batch.token);
        llama_batch_free(g->batch);
    }
    loader_release(&g->loaded);
    *g = (struct generator){0};
}

/* Read tokens[0..n) of a sequence from position `from` on; the last one's logits are for sampling. */
static int decode(struct generator *g, struct sequence *seq, const llama_token *tokens, size_t n)
{
    struct llama_batch *b = &g->batch;
    int r;

    b->n_tokens = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        b->token[i] = tokens[i];
        b->pos[i] = (llama_pos)(seq->tokens.n + i);
        b->n_seq_id[i] = 1;
        b->seq_id[i][0] = seq->id;
        b->logits[i] = i + 1 == n;
    }
    if (!tokens_reserve(&seq->tokens, n))
        return -1;
    memcpy(seq->tokens.v + seq->tokens.n, tokens, n * sizeof *tokens);
    seq->tokens.n += n;
    r = llama_decode(g->loaded.ctx, *b);
    if (r != DECODED)
        sequences_settle(&g->sequences, seq);
    else
        sign_of_life(g);
    return r;
}

void generator_warm_up(struct generator *g)
{
    struct sequence *seq = &g->sequences.v[0];
    llama_token token = 0;

    threads_begin(&g->threads);
    if (decode(g, seq, &token, 1) == DECODED)
        llama_synchronize(g->loaded.ctx);
    sequences_clear(&g->sequences, seq);
}

/* Why a decode was not done, as the generation's outcome; DECODED and NO_ROOM are the caller's. */
static enum tr_rc outcome(const struct generator *g, int decoded, struct engine_result *result, struct tr_err *err)
{
    enum generation_wish wish = g->io->wish(g->io->ctx);

    if (wish == GENERATION_CANCEL)
        return tr_fail(err, TR_CANCELLED, "cancelled");
    if (wish == GENERATION_STOP) {
        result->finish = FINISH_STOPPED;
        return TR_OK;
    }
    if (timed_out(g))
        return tr_fail(err, TR_TRANSIENT, "llama engine: no progress for %llu ms",
                       (unsigned long long)(g->timeout_ns / 1000000));
    return tr_fail(err, TR_TRANSIENT, "llama engine: reading tokens failed (%d)", decoded);
}

static struct llama_sampler *sampler_new(const struct engine_request *req)
{
    struct llama_sampler *chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    uint32_t seed = (uint32_t)(req->seed ^ req->seed >> 32);

    if (chain == NULL)
        return NULL;
    if (req->temperature <= 0) {
        llama_sampler_chain_add(chain, llama_sampler_init_greedy());
        return chain;
    }
    llama_sampler_chain_add(chain, llama_sampler_init_top_k(TOP_K));
    if (req->top_p > 0 && req->top_p < 1)
        llama_sampler_chain_add(chain, llama_sampler_init_top_p(req->top_p, 1));
    if (req->min_p > 0)
        llama_sampler_chain_add(chain, llama_sampler_init_min_p(req->min_p, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_temp(req->temperature));
    llama_sampler_chain_add(chain,
                            llama_sampler_init_dist(seed == LLAMA_DEFAULT_SEED ? 0 : seed)); /* that one is random */
    return chain;
}

/* Make what was written lately a little less likely, once a token, but not the marks that a reply ends with. */
static void penalise(const struct reply *r)
{
    const struct llama_vocab *vocab = r->g->loaded.vocab;
    const struct tokens *t = &r->seq->tokens;
    float *logits = llama_get_logits_ith(r->g->loaded.ctx, -1);
    size_t from = t->n > REPEAT_LAST ? t->n - REPEAT_LAST : 0;

    if (logits == NULL)
        return;
    for (size_t i = from; i < t->n; i++) {
        llama_token token = t->v[i];
        bool again = false;

        for (size_t k = from; k < i && !again; k++)
            again = t->v[k] == token;
        if (again || llama_vocab_is_control(vocab, token))
            continue;
        logits[token] = logits[token] > 0 ? logits[token] / REPEAT_PENALTY : logits[token] * REPEAT_PENALTY;
    }
}

static void send(struct reply *r)
{
    if (r->out.len > 0)
        r->g->io->text(r->g->io->ctx, &r->out);
    buf_clear(&r->out);
}

/* Put a token's text into the reply; false: the reply ends with what it stands for. */
static bool say(struct reply *r, llama_token token)
{
    const struct llama_vocab *vocab = r->g->loaded.vocab;
    char small[128], *piece = small;
    int32_t n = llama_token_to_piece(vocab, token, small, sizeof small, 0, false);
    bool more;

    if (n < 0) {
        piece = malloc((size_t)-n);
        if (piece == NULL)
            return false;
        n = llama_token_to_piece(vocab, token, piece, -n, 0, false);
    }
    more = pieces_feed(&r->pieces, piece, n > 0 ? (size_t)n : 0, &r->out);
    if (piece != small)
        free(piece);
    send(r);
    return more;
}

/* The reply's tokens, after the prompt was read. */
static enum tr_rc write_reply(struct reply *r, struct engine_result *result, struct tr_err *err)
{
    const struct loaded *l = &r->g->loaded;

    for (;;) {
        llama_token token;
        int decoded;

        if (r->g->io->wish(r->g->io->ctx) != GENERATION_GO_ON)
            return outcome(r->g, DECODED, result, err);
        if (result->completion_tokens == r->max_tokens) {
            result->finish = FINISH_LENGTH;
            return TR_OK;
        }
        threads_step(&r->g->threads);
        if (r->penalise)
            penalise(r);
        token = llama_sampler_sample(r->sampler, l->ctx, -1);
        result->finish = FINISH_STOP;
        if (llama_vocab_is_eog(l->vocab, token) || llama_vocab_is_control(l->vocab, token))
            return TR_OK; /* any other mark of the template would begin somebody else's part */
        result->completion_tokens++;
        if (!say(r, token))
            return TR_OK;
        if (result->completion_tokens == r->max_tokens)
            continue;
        decoded = r->seq->tokens.n < l->context_tokens ? decode(r->g, r->seq, &token, 1) : NO_ROOM;
        if (decoded == NO_ROOM) {
            result->finish = FINISH_LENGTH;
            return TR_OK;
        }
        if (decoded != DECODED)
            return outcome(r->g, decoded, result, err);
    }
}

/* Read what of the prompt is not in the sequence; *ret_go_on is false where the generation is over already. */
static enum tr_rc read_prompt(struct reply *r, const struct tokens *prompt, bool *ret_go_on,
                              struct engine_result *result, struct tr_err *err)
{
    int again = 1, decoded;

    result->cached_tokens = (uint32_t)r->seq->tokens.n;
    *ret_go_on = false;
    while (r->seq->tokens.n < prompt->n) {
        size_t at = r->seq->tokens.n, n = prompt->n - at;

        if (r->g->io->wish(r->g->io->ctx) != GENERATION_GO_ON)
            return outcome(r->g, DECODED, result, err);
        threads_step(&r->g->threads);
        decoded = decode(r->g, r->seq, prompt->v + at, n < LOADER_BATCH ? n : LOADER_BATCH);
        if (decoded == NO_ROOM && again-- > 0) { /* from the beginning, with an empty sequence */
            sequences_clear(&r->g->sequences, r->seq);
            result->cached_tokens = 0;
        } else if (decoded != DECODED) {
            return outcome(r->g, decoded, result, err);
        }
    }
    *ret_go_on = true;
    return TR_OK;
}

static enum tr_rc run(struct reply *r, const struct engine_request *req, struct tokens *prompt,
                      struct engine_result *result, struct tr_err *err)
{
    struct generator *g = r->g;
    uint32_t context = g->loaded.context_tokens;
    bool go_on = false;
    enum tr_rc rc;

    r->max_tokens = req->max_tokens > 0 && req->max_tokens < context / 2 ? req->max_tokens : context / 2;
    rc = rendering_build(&g->loaded, req->prompt, context - r->max_tokens - MARGIN, prompt, err);
    if (rc != TR_OK)
        return rc;
    r->penalise = req->temperature > 0;
    r->sampler = sampler_new(req);
    if (r->sampler == NULL)
        return tr_fail(err, TR_NOMEM, "llama engine: sampler");
    r->seq = sequences_take(&g->sequences, &req->chat, prompt);
    result->prompt_tokens = (uint32_t)prompt->n;
    threads_begin(&g->threads);
    rc = read_prompt(r, prompt, &go_on, result, err);
    if (rc != TR_OK || !go_on)
        return rc;
    rc = write_reply(r, result, err);
    if (rc == TR_OK) {
        pieces_end(&r->pieces, &r->out);
        send(r);
    }
    return rc;
}

enum tr_rc generation_run(struct generator *g, const struct engine_request *req, const struct generation_io *io,
                          struct engine_result *result, struct tr_err *err)
{
    struct reply r = {.g = g, .pieces.stops = &g->stops};
    struct tokens prompt = {0};
    enum tr_rc rc;

    *result = (struct engine_result){0};
    g->io = io;
    g->timeout_ns = req->timeout_ms * 1000000;
    sign_of_life(g);
    rc = run(&r, req, &prompt, result, err);
    if (rc == TR_TRANSIENT && r.seq != NULL) /* whatever went wrong, the next attempt begins anew */
        sequences_clear(&g->sequences, r.seq);
    g->io = NULL;
    if (r.sampler != NULL)
        llama_sampler_free(r.sampler);
    pieces_release(&r.pieces);
    buf_wipe(&r.out);
    tokens_wipe(&prompt);
    return rc;
}
