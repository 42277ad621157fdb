/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_CONTROL_H
#define CMEK_MOUNT_CONTROL_H

#include <jansson.h>

#include "base/err.h"
#include "kms/json.h"

/*
 * The answering end of the control socket (doc/control.md): who may ask, how long and how much, and which function
 * answers. The lines themselves are fs/volume/ctlsock.h. The socket is made by the supervisor, since the storage daemon
 * may make none.
 */
struct cmek_control;

/*
 * A command. run() is called in the thread of the connection, several at once, and may take as long as it likes. request
 * is the whole object. *ret_result is a new value, or stays NULL. 0 or -errno with the error set.
 */
struct cmek_control_verb {
	const char *name;
	int (*run)(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err);
};

/* Connections that are served at once; one more is told so and closed. */
#define CMEK_CONTROL_CLIENTS_MAX 16

/*
 * Serves listener (taken over) with these verbs, a table that ends with a zeroed one, in threads of its own (so: after
 * the last fork). Peers other than root and the effective user of this process are refused. Kind system.
 */
int cmek_control_new(int listener, const struct cmek_control_verb *verbs, void *arg, struct cmek_control **ret_control,
		     struct cmek_error *err);
/* Ends all connections and waits for commands that are under way. NULL allowed. */
void cmek_control_free(struct cmek_control *control);

#endif
