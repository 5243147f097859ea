// quotactl where there are no quotas.
// users: root ordinary
#include "conf.h"
#include <sys/quota.h>

static void quotas(void) {
	static const int k[] = {Q_SYNC, Q_QUOTAON, Q_QUOTAOFF, Q_GETFMT, Q_GETINFO, Q_GETQUOTA, 0x5803, 0};
	static const char *p[] = {0, "none", ".", "/dev/null", "", "file"};
	char b[4096], n[64];
	file("file", "x");
	for (unsigned i = 0; i < sizeof k / sizeof *k; i++) {
		for (int j = 0; j < 6; j++)
			sprintf(n, "%x %s", k[i], p[j] ?: "-"), RN(n, SC(quotactl, QCMD(k[i], 0), p[j], 0, b));
		sprintf(n, "%x type 3", k[i]), RN(n, SC(quotactl, QCMD(k[i], 3), ".", 0, b)), RN(n, SC(quotactl, QCMD(k[i], 3), 0, 0, b)), RN(n, SC(quotactl_fd, -1, QCMD(k[i], 0), 0, b)), RN(n, SC(quotactl_fd, 0, QCMD(k[i], 3), 0, b));
	}
	R(SC(quotactl, QCMD(Q_GETFMT, 0), BAD, 0, b));
}
int main(void) { sub(quotas); }
