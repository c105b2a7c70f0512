/* SPDX-License-Identifier: Apache-2.0 */
/* thread: a thread inherits its creator's signal mask, so that is changed for the moment of birth.
 */
#include "vmrun/thread.h"

#include <assert.h>
#include <signal.h>
#include <string.h>

#define NAME_BYTES 16 /* with the NUL: the kernel's limit for a thread's name */

int thread_start(pthread_t *ret_thread, const char *name, size_t stack_bytes, void *(*fn)(void *),
                 void *opaque, struct error *err)
{
    sigset_t blocked, before;
    pthread_attr_t attr;
    int code;

    assert(strlen(name) < NAME_BYTES);
    pthread_attr_init(&attr);
    if (stack_bytes)
        pthread_attr_setstacksize(&attr, stack_bytes);
    sigfillset(&blocked);
    sigdelset(&blocked, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    code = pthread_create(ret_thread, &attr, fn, opaque);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (code)
        return error_errno(err, code, "thread '%s'", name);
    pthread_setname_np(*ret_thread, name);
    return 0;
}
