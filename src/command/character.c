/* character - `troupe character import|list|show|export|remove`: the catalogue from the command line. */
#include "base/buf.h"
#include "command/command.h"
#include "command/shipped.h"
#include "domain/card.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: troupe character import FILE.json [--avatar IMAGE] [--id ID] [--replace]\n"
    "       troupe character list\n"
    "       troupe character show ID\n"
    "       troupe character export ID [--avatar FILE]   the card as it stands, to stdout\n"
    "       troupe character remove ID\n\n"
    "A card is Character Card V2 JSON (V1 is taken too); an image is PNG, JPEG, WebP or a plain SVG.\n"
    "An id is 1 to 64 of a-z, 0-9 and '-'; without --id it is made out of the name.\n"
    "Chats that a removed character had stay; nobody can open new ones with it.\n";

struct args {
    const char *what, *name, *avatar, *id;
    bool replace;
};

static int wrong(const char *fmt, const char *arg)
{
    fputs("troupe character: ", stderr);
    fprintf(stderr, "%s%s%s\n\n%s", fmt, arg != NULL ? " " : "", arg != NULL ? arg : "", help);
    return EXIT_USAGE;
}

static bool option(const char *name, int argc, char **argv, int *i, const char **ret_value)
{
    if (strcmp(argv[*i], name) != 0 || *i + 1 >= argc)
        return false;
    *ret_value = argv[++*i];
    return true;
}

static int parse(int argc, char **argv, struct args *a)
{
    const bool import = strcmp(a->what, "import") == 0, export = strcmp(a->what, "export") == 0;

    for (int i = 0; i < argc; i++) {
        if ((import || export) && option("--avatar", argc, argv, &i, &a->avatar))
            continue;
        if (import && option("--id", argc, argv, &i, &a->id))
            continue;
        if (import && strcmp(argv[i], "--replace") == 0)
            a->replace = true;
        else if (argv[i][0] == '-' && argv[i][1] != '\0')
            return wrong("unknown option, or one without its value:", argv[i]);
        else if (a->name != NULL)
            return wrong("one argument too many:", argv[i]);
        else
            a->name = argv[i];
    }
    if (a->id != NULL && !character_id_valid(a->id, strlen(a->id)))
        return wrong("--id: not 1 to 64 of a-z, 0-9 and '-', or reserved (any):", a->id);
    return EXIT_DONE;
}

static enum tr_rc read_file(const char *path, size_t max, struct buf *out, struct tr_err *err)
{
    FILE *f = fopen(path, "re");
    enum tr_rc rc = TR_OK;
    uint8_t *to;

    if (f == NULL)
        return tr_fail(err, TR_INVALID, "%s: %s", path, strerror(errno));
    to = buf_reserve(out, max + 1);
    if (to == NULL)
        rc = tr_fail(err, TR_NOMEM, "%s", path);
    else
        out->len = fread(to, 1, max + 1, f);
    if (rc == TR_OK && ferror(f))
        rc = tr_fail(err, TR_INVALID, "%s: %s", path, strerror(errno));
    else if (rc == TR_OK && out->len > max)
        rc = tr_fail(err, TR_INVALID, "%s: larger than %zu bytes", path, max);
    fclose(f);
    return rc;
}

static enum tr_rc do_import(struct wiring *w, const struct args *a, struct tr_err *err)
{
    struct buf json = {0}, avatar = {0};
    char id[CHARACTER_ID_MAX + 1];
    enum tr_rc rc = read_file(a->name, CARD_BYTES_MAX, &json, err);

    if (rc == TR_OK && a->avatar != NULL)
        rc = read_file(a->avatar, AVATAR_BYTES_MAX, &avatar, err);
    if (rc == TR_OK && a->avatar != NULL && avatar.len == 0)
        rc = tr_fail(err, TR_INVALID, "avatar: %s is empty", a->avatar);
    if (rc == TR_OK)
        rc = shipped_put(w, (struct slice){json.data, json.len}, (struct slice){avatar.data, avatar.len}, a->id,
                         a->replace, id, err);
    if (rc == TR_OK)
        printf("%s\n", id);
    else if (rc == TR_BUSY)
        tr_fail(err, rc, "there is a character of this id already: --replace takes its place, --id gives another");
    buf_release(&json);
    buf_release(&avatar);
    return rc;
}

static void on_list(void *ctx, enum tr_rc rc, const struct catalogue_character *list, size_t n,
                    const struct tr_err *err)
{
    for (size_t i = 0; rc == TR_OK && i < n; i++)
        printf("%-24s %-24s %s\n", list[i].id, list[i].name, list[i].tagline);
    await_done(ctx, rc, err);
}

struct shown {
    struct await a;
    const struct args *args;
};

static void print_summary(const struct catalogue_character *c, const struct card *card)
{
    printf(
        "id          %s\nname        %s\ntagline     %s\ncreator     %s\nversion     %s\navatar      %s, %zu bytes\n",
        c->id, card->name, card->tagline, card->creator, card->version, c->avatar.len > 0 ? c->avatar_type : "none",
        c->avatar.len);
    printf("greetings   %zu\nlorebook    %zu entries\ntags       ",
           card->greetings_n + (card->first_message[0] != '\0'), card->lore_n);
    for (size_t i = 0; i < card->tags_n; i++)
        printf(" %s", card->tags[i]);
    printf("\n\n%s\n", card->description);
}

static void on_show(void *ctx, enum tr_rc rc, const struct catalogue_character *c, const struct tr_err *err)
{
    struct shown *s = ctx;
    struct tr_err mine = {0};
    struct card *card = NULL;
    FILE *f;

    if (rc == TR_OK && strcmp(s->args->what, "export") == 0) {
        fwrite(c->card.data, 1, c->card.len, stdout);
        if (c->card.len > 0 && c->card.data[c->card.len - 1] != '\n')
            putchar('\n');
        if (s->args->avatar != NULL) {
            f = fopen(s->args->avatar, "we");
            if (f == NULL || fwrite(c->avatar.data, 1, c->avatar.len, f) != c->avatar.len)
                rc = tr_fail(&mine, TR_INVALID, "%s: %s", s->args->avatar, strerror(errno));
            if (f != NULL && fclose(f) != 0 && rc == TR_OK)
                rc = tr_fail(&mine, TR_INVALID, "%s: %s", s->args->avatar, strerror(errno));
            err = &mine;
        }
    } else if (rc == TR_OK) {
        rc = card_parse(c->card.data, c->card.len, &card, &mine);
        if (rc == TR_OK)
            print_summary(c, card);
        err = &mine;
        card_free(card);
    }
    await_done(&s->a, rc, err);
}

static enum tr_rc run(struct wiring *w, const struct args *a, struct tr_err *err)
{
    struct catalogue *const c = w->env.catalogue;
    struct await wait = {.loop = w->loop};
    struct shown shown = {.a = {.loop = w->loop}, .args = a};
    struct tr_op *op = NULL;
    enum tr_rc rc;

    if (strcmp(a->what, "import") == 0)
        return do_import(w, a, err);
    if (strcmp(a->what, "list") == 0)
        return await(&wait, c->ops->characters(c, on_list, &wait, &op, err), err);
    if (strcmp(a->what, "remove") == 0)
        rc = await(&wait, c->ops->character_remove(c, a->name, await_done, &wait, &op, err), err);
    else
        rc = await(&shown.a, c->ops->character_get(c, a->name, on_show, &shown, &op, err), err);
    return rc == TR_NOT_FOUND
               ? tr_fail(err, rc, "there is no character '%.64s'; `troupe character list` tells which", a->name)
               : rc;
}

int command_character(const struct config *config, int argc, char **argv)
{
    static const char *const words[] = {"import", "list", "show", "export", "remove"};
    struct args a = {0};
    struct wiring w;
    struct tr_err err = {0};
    enum tr_rc rc;
    int status;

    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    for (size_t i = 0; argc > 0 && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(argv[0], words[i]) == 0)
            a.what = words[i];
    if (a.what == NULL)
        return wrong(argc > 0 ? "unknown:" : "what to do?", argc > 0 ? argv[0] : NULL);
    status = parse(argc - 1, argv + 1, &a);
    if (status != EXIT_DONE)
        return status;
    if ((a.name == NULL) != (strcmp(a.what, "list") == 0))
        return wrong(a.name == NULL ? "which one?" : "list takes no", a.name);
    rc = wiring_open(config, WIRING_CATALOGUE, WIRING_ONE_PROCESS, &w, &err);
    if (rc == TR_OK) {
        rc = strcmp(a.what, "import") != 0 ? shipped_characters(&w, &err) : TR_OK;
        if (rc == TR_OK)
            rc = run(&w, &a, &err);
        wiring_release(&w);
    }
    if (rc == TR_OK && (fflush(stdout) != 0 || ferror(stdout)))
        rc = tr_fail(&err, TR_TRANSIENT, "cannot write the result: %s", strerror(errno));
    if (rc != TR_OK)
        fprintf(stderr, "troupe character %s: %s\n", a.what, tr_err_text(&err));
    return rc == TR_OK ? EXIT_DONE : EXIT_FAILED;
}
