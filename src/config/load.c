/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load: from a JSON file to struct vm_config. The file may come from anywhere:
 * its size is limited before it is parsed, and nothing of it reaches a message
 * unescaped.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "array.h"
#include "quote.h"
#include "tables.h"
#include "value.h"
#include "vmrun/config.h"
#include "vmrun/text.h"

#define FILE_MAX ((size_t)1 << 20)
#define KEYS_MAX 32    /* of one object, as candidates for "did you mean" */
#define FILE_SHOWN 160 /* bytes of the file's name in a message */
#define WORD "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-$"
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

/* One file being read. */
struct load {
    struct vm_config *config;
    const char *file; /* as messages call it */
    char *folder;     /* of the file, ending in "/"; NULL: the working folder */
};

static int read_file(const char *path, char *buf, size_t *ret_len, struct error *err)
{
    struct stat st;
    size_t len = 0;
    int r = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "cannot open");
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        r = error_set(err, EISDIR, "a folder; name the file in it");
        goto done;
    }
    while (len <= FILE_MAX) {
        ssize_t n = read(fd, buf + len, FILE_MAX + 1 - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            r = error_errno(err, errno, "cannot read");
            goto done;
        }
        if (n == 0)
            break;
        len += (size_t)n;
    }
    if (len > FILE_MAX)
        r = error_set(err, EFBIG, "over 1 MiB; no description of a machine is that long");
    else
        *ret_len = len;
done:
    close(fd);
    return r;
}

/* The usual slips, by jansson's words for them; the first that fits is told. */
static const struct {
    const char *words, *hint;
} syntax_hints[] = {
    {"string or '}' expected near '}'", "; take away the comma before it"},
    {"'}' expected near '\"", "; is a comma missing before it?"},
    {" near '/'", "; JSON has no comments"},
    {" near '#'", "; JSON has no comments"},
    {" near '''", "; strings stand in double quotes"},
    {"string or '}' expected near '", "; keys stand in double quotes"},
};

static int refuse_syntax(const char *file, const json_error_t *cause, struct error *err)
{
    const char *near = strstr(cause->text, " near ");
    const char *what = NULL, *hint = "";
    char text[QUOTE_SIZE];

    if (!cause->text[0]) /* jansson's way to say so in most places */
        return error_set(err, ENOMEM, "%s: out of memory", file);
    switch (json_error_code(cause)) {
    case json_error_stack_overflow: what = "nested too deeply"; break;
    case json_error_duplicate_key: what = "the same key a second time"; break;
    case json_error_null_character:
    case json_error_null_byte_in_key: what = "\\u0000 has no place in a string"; break;
    case json_error_invalid_utf8: what = "not UTF-8"; break;
    default: break;
    }
    for (size_t i = 0; !hint[0] && i < sizeof(syntax_hints) / sizeof(syntax_hints[0]); i++)
        if (strstr(cause->text, syntax_hints[i].words))
            hint = syntax_hints[i].hint;
    if (what)
        config_escape(near ? near : "", text);
    else
        config_escape(cause->text, text);
    return error_set(err, EINVAL, "%s:%d:%d: %s%s%s", file, cause->line, cause->column,
                     what ? what : "", text, hint);
}

/* What a parser would report in puzzling words, or pass over. */
static int check_bytes(const char *file, const char *text, size_t len, struct error *err)
{
    const char *nul = memchr(text, '\0', len);
    unsigned line = 1, column = 1;
    size_t blank = 0;

    while (blank < len && text[blank] && strchr(" \t\r\n", text[blank]))
        blank++;
    if (blank == len)
        return error_set(err, EINVAL, "%s: empty; a machine is a JSON object, {...}", file);
    if (len >= strlen(BYTE_ORDER_MARK) &&
        memcmp(text, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0)
        return error_set(err, EINVAL, "%s:1:1: a byte-order mark; save the file without one", file);
    if (!nul)
        return 0;
    for (const char *at = text; at < nul; at++) {
        column = *at == '\n' ? 1 : column + 1;
        line += *at == '\n';
    }
    return error_set(err, EINVAL, "%s:%u:%u: a NUL byte; JSON is text, in UTF-8", file, line,
                     column);
}

/* Whether another object has a key of this name; *ret_owner is that object's, NULL at the top. */
static bool find_elsewhere(const struct config_object *here, const char *name,
                           const char **ret_owner)
{
    if (here != &config_root && config_object_find(&config_root, name)) {
        *ret_owner = NULL;
        return true;
    }
    for (const struct config_key *key = config_root.keys; key->name; key++) {
        if (key->object && key->object != here && config_object_find(key->object, name)) {
            *ret_owner = key->name;
            return true;
        }
    }
    return false;
}

static int refuse_key(const struct config_object *object, const char *name, struct error *err)
{
    const char *candidates[KEYS_MAX + 1];
    const char *owner, *near;
    char list[300];
    unsigned count = 0;

    for (const struct config_key *key = object->keys; key->name && count < KEYS_MAX; key++)
        candidates[count++] = key->name;
    candidates[count] = NULL;

    if (find_elsewhere(object, name, &owner)) {
        if (!owner)
            return error_set(err, EINVAL, "unknown key; it belongs at the top level");
        return error_set(err, EINVAL, "unknown key; it belongs in \"%s\"", owner);
    }
    near = text_nearest(name, candidates);
    if (near)
        return error_set(err, EINVAL, "unknown key; did you mean \"%s\"?", near);
    config_object_list(object, list, sizeof(list));
    return error_set(err, EINVAL, "unknown key; known here: %s", list);
}

/* A key as a path shows it: in quotes unless it is a plain word. */
static const char *show_key(const char *name, char buf[QUOTE_SIZE])
{
    size_t len = strlen(name);
    bool plain = len > 0 && strspn(name, WORD) == len;

    return plain ? config_escape(name, buf) : config_quote(name, buf);
}

static int load_object(const struct load *load, const struct config_object *object, void *base,
                       const char *prefix, json_t *json, struct error *err);

/* An array of objects takes the place of what was there. path: its own. */
static int load_array(const struct load *load, const struct config_key *array, const char *path,
                      json_t *json, struct error *err)
{
    const struct config_key an_item = {.type = CONFIG_TYPE_OBJECT, .object = array->object};
    size_t index;
    json_t *value;
    void *item;

    config_array_clear(array, load->config);
    json_array_foreach(json, index, value)
    {
        char item_path[280];
        int r;

        snprintf(item_path, sizeof(item_path), "%s[%zu]", path, index);
        r = config_array_add(array, load->config, &item, err);
        if (r == 0 && !json_is_object(value))
            r = config_value_load(&an_item, item, load->folder, value, err);
        if (r < 0)
            return error_prefix(err, "%s: %s", load->file, item_path);
        r = load_object(load, array->object, item, item_path, value, err);
        if (r < 0)
            return r;
        r = config_array_finish(array, load->config, item, err);
        if (r < 0)
            return error_prefix(err, "%s: %s", load->file, item_path);
    }
    return 0;
}

/* base: what the offsets of the object's keys count from. */
static int load_object(const struct load *load, const struct config_object *object, void *base,
                       const char *prefix, json_t *json, struct error *err)
{
    const char *name;
    json_t *value;

    json_object_foreach(json, name, value)
    {
        const struct config_key *key = config_object_find(object, name);
        char path[240], shown[QUOTE_SIZE];
        int r;

        snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] ? "." : "", show_key(name, shown));
        if (key && key->type == CONFIG_TYPE_OBJECT && json_is_object(value)) {
            r = load_object(load, key->object, base, path, value, err);
            if (r < 0)
                return r;
            if (key->optional)
                *(bool *)((char *)base + key->offset) = true;
            continue;
        }
        if (key && key->type == CONFIG_TYPE_ARRAY && json_is_array(value)) {
            r = load_array(load, key, path, value, err);
            if (r < 0)
                return r;
            continue;
        }
        if (!key)
            r = refuse_key(object, name, err);
        else
            r = config_value_load(key, base, load->folder, value, err);
        if (r < 0)
            return error_prefix(err, "%s: %s", load->file, path);
    }
    return 0;
}

static int load_text(const struct load *load, const char *text, size_t len, struct error *err)
{
    json_error_t cause;
    json_t *root;
    int r = check_bytes(load->file, text, len, err);

    if (r < 0)
        return r;
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &cause);
    if (!root)
        return refuse_syntax(load->file, &cause, err);
    if (json_is_object(root))
        r = load_object(load, &config_root, load->config, "", root, err);
    else
        r = error_set(err, EINVAL, "%s: not a JSON object; a machine is {...}", load->file);
    json_decref(root);
    return r;
}

/* What messages call it: the end of a long name, or they have no room for what is wrong. */
static const char *show_file(const char *path, char buf[FILE_SHOWN + 4])
{
    size_t len = strlen(path);

    if (len <= FILE_SHOWN)
        return path[0] ? path : "\"\"";
    snprintf(buf, FILE_SHOWN + 4, "...%s", path + len - FILE_SHOWN);
    return buf;
}

int config_load_text(struct vm_config *config, const char *where, const char *text, size_t len,
                     struct error *err)
{
    char shown[FILE_SHOWN + 4];
    const struct load load = {.config = config, .file = show_file(where, shown)};

    if (len > FILE_MAX)
        return error_set(err, EFBIG, "%s: over 1 MiB; no description of a machine is that long",
                         load.file);
    return load_text(&load, text, len, err);
}

int config_load(struct vm_config *config, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    char shown[FILE_SHOWN + 4];
    struct load load = {.config = config, .file = show_file(path, shown)};
    char *text = malloc(FILE_MAX + 2);
    size_t len = 0;
    int r;

    if (slash)
        load.folder = strndup(path, (size_t)(slash - path) + 1);
    if (!text || (slash && !load.folder)) {
        r = error_set(err, ENOMEM, "%s: out of memory", load.file);
        goto done;
    }
    r = read_file(path, text, &len, err);
    if (r < 0) {
        error_prefix(err, "%s", load.file);
        goto done;
    }
    r = load_text(&load, text, len, err);
done:
    free(load.folder);
    free(text);
    return r;
}
