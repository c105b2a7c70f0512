/* SPDX-License-Identifier: Apache-2.0 */
/* handover: the machine's disks, all locked at once, for block_handover. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "vmrun/block_handover.h"
#include "vmrun/virtio_devices.h"

struct set {
    struct block_handover_disk disks[CONFIG_MAX_DISKS];
    struct block_handover handover;
};

static void set_lock(struct set *set, struct machine *m, const uint8_t *session)
{
    unsigned count = (unsigned)m->config->disk_count;

    for (unsigned i = 0; i < count; i++) {
        pthread_mutex_lock(&m->disks[i]->lock);
        set->disks[i] = (struct block_handover_disk){
            .id = m->config->disks[i].id,
            .path = m->config->disks[i].path,
            .block = virtio_blk_block(m->disks[i]),
        };
    }
    set->handover =
        (struct block_handover){.session = session, .disks = set->disks, .count = count};
}

static void set_unlock(struct machine *m)
{
    for (size_t i = m->config->disk_count; i-- > 0;)
        pthread_mutex_unlock(&m->disks[i]->lock);
}

bool machine_has_arbiter(const struct machine *m)
{
    bool has = false;

    for (unsigned i = 0; i < m->config->disk_count; i++)
        has |= !m->config->disks[i].readonly;
    return has;
}

int machine_handover_mark(struct machine *m, const uint8_t *session, struct error *err)
{
    struct set set;

    set_lock(&set, m, session);
    int r = block_handover_mark(&set.handover, err);

    set_unlock(m);
    return r;
}

void machine_handover_unmark(struct machine *m, const uint8_t *session)
{
    struct set set;

    set_lock(&set, m, session);
    block_handover_unmark(&set.handover);
    set_unlock(m);
}

int machine_disks_shared(struct machine *m, const uint8_t *session, struct error *err)
{
    struct set set;

    set_lock(&set, m, session);
    int r = block_handover_check(&set.handover, err);

    set_unlock(m);
    return r;
}

uint64_t machine_handover_offer(struct machine *m, const uint8_t *session)
{
    struct set set;

    set_lock(&set, m, session);
    uint64_t times = block_handover_offer(&set.handover);

    set_unlock(m);
    return times;
}

int machine_handover_take(struct machine *m, const uint8_t *session, uint64_t times,
                          bool *ret_arbiter, struct error *err)
{
    struct set set;

    set_lock(&set, m, session);
    int r = block_handover_take(&set.handover, times, ret_arbiter, err);

    set_unlock(m);
    return r;
}

int machine_handover_ask(struct machine *m, const uint8_t *session,
                         enum block_handover_answer *ret_answer, struct error *why,
                         struct error *err)
{
    struct set set;

    set_lock(&set, m, session);
    int r = block_handover_ask(&set.handover, ret_answer, why, err);

    set_unlock(m);
    return r;
}

void machine_set_uncertain(struct machine *m, const char *words)
{
    if (m->state == MACHINE_ENDED)
        return;
    if (m->state == MACHINE_RUNNING && !m->held)
        machine_stop_running(m);
    m->held = false;
    m->leaving = MACHINE_STAYS;
    free(m->uncertain);
    m->uncertain = strdup(words);
    machine_set_state(m, MACHINE_UNCERTAIN);
}

int machine_resume_anyway(struct machine *m, struct error *err)
{
    struct set set;

    if (m->state != MACHINE_UNCERTAIN)
        return machine_resume(m, err);
    set_lock(&set, m, NULL);
    int r = block_handover_retake(&set.handover, err);

    set_unlock(m);
    if (r < 0)
        return error_prefix(err, "cannot resume");
    free(m->uncertain);
    m->uncertain = NULL;
    machine_announce(m); /* the other one may have */
    machine_start_running(m);
    machine_set_state(m, MACHINE_RUNNING);
    return 0;
}
