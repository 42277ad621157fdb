/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What cmekctl shred asks of key services, once the slots are gone: to delete their keys, and whether what was in the slots
 * still opens. It touches neither header nor store.
 */
#include "config.h"

#include <string.h>

#include "tools/ctl_shred.h"

/* What the service answered just now. NULL: no memory. */
static json_t *receipts_json(struct cmek_kms *kms)
{
	const struct cmek_kms_receipt *receipts;
	json_t *list = json_array();
	size_t n, i;

	receipts = cmek_kms_receipts(kms, &n);
	for (i = 0; i < n; i++)
		json_array_append_new(list, json_pack("{s:s, s:s?, s:i, s:o}", "what", receipts[i].what, "request_id",
						      receipts[i].request_id[0] ? receipts[i].request_id : NULL,
						      "http_status", (int)receipts[i].status, "date",
						      receipts[i].date ? cmek_ctl_time_json(receipts[i].date) :
									 json_null()));
	return list;
}

/* Two slots of one key: it is deleted once. True: that was done for an earlier one. */
static bool share_answer(struct cmek_shred_run *s, size_t index)
{
	struct cmek_shred_victim *v = &s->victims[index], *before;
	size_t i;

	for (i = 0; i < index; i++) {
		before = &s->victims[i];
		if (!before->asked || strcmp(before->slot.resolved, v->slot.resolved))
			continue;
		v->asked = true;
		v->done = before->done;
		v->date = before->date;
		v->state = before->state;
		v->requests = json_incref(before->requests);
		v->kms_err = before->kms_err;
		return true;
	}
	return false;
}

static void ask_kms(const struct cmek_shred_run *s, struct cmek_shred_victim *v)
{
	struct cmek_kms_principal principal = cmek_slot_principal(&v->slot);
	struct cmek_kms_info info = { 0 };
	struct cmek_kms *kms = NULL;
	int ret;

	v->asked = true;
	ret = cmek_kms_open(v->slot.resolved, &principal, &s->unlock.kms, &kms, &v->kms_err);
	if (!ret && s->force)
		ret = cmek_kms_force_deletion(kms, &v->date, &v->kms_err);
	else if (!ret)
		ret = cmek_kms_schedule_deletion(kms, s->days, &v->date, &v->kms_err);
	v->done = !ret;
	if (kms) {
		v->requests = receipts_json(kms);
		if (!cmek_kms_describe(kms, &info, NULL)) {
			v->state = cmek_kms_state_name(info.state);
			v->date = v->done && info.deletion_date ? info.deletion_date : v->date;
		}
		cmek_kms_info_done(&info);
	}
	cmek_kms_close(kms);
	cmek_ctl_shred_audit(s, "key.schedule-deletion", &v->slot, &v->kms_err);
}

void cmek_ctl_shred_keys(struct cmek_shred_run *s)
{
	struct cmek_secret *kek = NULL;
	size_t i;

	for (i = 0; i < s->n_victims; i++) {
		if (s->kms && !share_answer(s, i) && strcmp(s->victims[i].slot.provider, CMEK_KMS_RECOVERY_NAME))
			ask_kms(s, &s->victims[i]);
		/* Whether somebody has the code can't be known: it is taken for granted. */
		if (!strcmp(s->victims[i].slot.provider, CMEK_KMS_RECOVERY_NAME))
			continue;
		if (!cmek_keyslot_unwrap(s->uuid, &s->victims[i].slot, &s->unlock.kms, &kek, NULL, &s->victims[i].opens))
			cmek_secret_free(kek);
		kek = NULL;
	}
}
