/* shipped - puts cards into the catalogue: the program's own on the first start, a user's by `troupe character import`. */
#include "command/shipped.h"

#include "base/embedded.h"
#include "domain/card.h"

#include <stdio.h>
#include <string.h>

enum tr_rc shipped_put(struct wiring *w, struct slice json, struct slice avatar, const char *id, bool replace,
                       char ret_id[CHARACTER_ID_MAX + 1], struct tr_err *err)
{
    struct catalogue *const c = w->env.catalogue;
    struct catalogue_character ch = {.avatar_type = ""};
    struct await a = {.loop = w->loop};
    struct card *card = NULL;
    struct buf text = {0};
    struct tr_op *op = NULL;
    enum tr_rc rc = card_parse(json.data, json.len, &card, err);

    if (rc != TR_OK)
        return rc;
    if (avatar.len > AVATAR_BYTES_MAX)
        rc = tr_fail(err, TR_INVALID, "avatar: larger than %d bytes", AVATAR_BYTES_MAX);
    else if (avatar.len > 0 && avatar_type(avatar.data, avatar.len) == NULL)
        rc = tr_fail(err, TR_INVALID,
                     "avatar: neither PNG, JPEG, WebP nor an SVG without scripts and outside references");
    if (rc == TR_OK)
        rc = card_print(card, &text);
    if (rc == TR_OK) {
        snprintf(ch.id, sizeof ch.id, "%s", id != NULL ? id : card->id);
        ch.name = card->name;
        ch.tagline = card->tagline;
        ch.card = (struct slice){text.data, text.len};
        ch.avatar = avatar;
        if (avatar.len > 0)
            ch.avatar_type = avatar_type(avatar.data, avatar.len);
        ch.updated_ms = wall_ms();
        rc = await(&a, c->ops->character_put(c, &ch, replace, await_done, &a, &op, err), err);
    }
    if (rc == TR_OK)
        memcpy(ret_id, ch.id, sizeof ch.id);
    buf_release(&text);
    card_free(card);
    return rc;
}

struct first {
    struct await a;
    bool mine;
};

static void on_setting(void *ctx, enum tr_rc rc, bool mine, const char *value, const struct tr_err *err)
{
    struct first *f = ctx;

    (void)value;
    f->mine = mine;
    await_done(&f->a, rc, err);
}

static struct slice find_avatar(const char *card_path)
{
    const size_t stem = strlen(card_path) - strlen(".json");

    for (size_t i = 0; i < shipped_files_n; i++) {
        const struct embedded_file *const f = &shipped_files[i];

        if (strncmp(f->path, card_path, stem) == 0 && f->path[stem] == '.' && strcmp(f->path, card_path) != 0)
            return (struct slice){f->data, f->len};
    }
    return (struct slice){0};
}

enum tr_rc shipped_characters(struct wiring *w, struct tr_err *err)
{
    struct catalogue *const c = w->env.catalogue;
    struct first f = {.a = {.loop = w->loop}};
    struct tr_op *op = NULL;
    enum tr_rc rc;

    rc = await(&f.a, c->ops->setting_get(c, "characters_shipped", on_setting, &f, &op, err), err);
    if (rc != TR_NOT_FOUND)
        return rc;
    rc = TR_OK;
    for (size_t i = 0; i < shipped_files_n && rc == TR_OK; i++) {
        const struct embedded_file *const file = &shipped_files[i];
        const size_t len = strlen(file->path);
        char id[CHARACTER_ID_MAX + 1];

        if (len < 5 || strcmp(file->path + len - 5, ".json") != 0)
            continue;
        rc = shipped_put(w, (struct slice){file->data, file->len}, find_avatar(file->path), NULL, false, id, err);
        if (rc == TR_BUSY)
            rc = TR_OK; /* a start that was killed had put it there already */
        else if (rc != TR_OK)
            rc = tr_wrap(err, rc, "%s", file->path);
    }
    if (rc == TR_OK) /* last: a kill before this only means that it is done again */
        rc = await(&f.a, c->ops->setting_put(c, "characters_shipped", "1", on_setting, &f, &op, err), err);
    return rc;
}
