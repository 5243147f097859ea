// F_SEAL_EXEC: whether a memfd can be executed does not change any more.
#include "conf.h"

int main(void) {
	static const unsigned flags[] = {8, 0, 2, 10, 16, 18}; // MFD_NOEXEC_SEAL, MFD_ALLOW_SEALING, MFD_EXEC
	static const int modes[] = {01777, 0600, 0666, 0644, 0755, 0777, 04666, 0667, 0111, 0};
	for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
		int f = memfd_create("", flags[i]);
		struct stat st;
		fstat(f, &st);
		P("flags %u: mode %o seals %x", flags[i], st.st_mode, fcntl(f, F_GET_SEALS));
		for (unsigned k = 0; k < sizeof modes / sizeof *modes; k++) {
			RN("fchmod", fchmod(f, modes[k]));
			fstat(f, &st);
			P("%o", st.st_mode);
		}
		R(ftruncate(f, 10));
		R(fchown(f, -1, -1));
		R(fcntl(f, F_ADD_SEALS, 0x20));
		P("seals %x", fcntl(f, F_GET_SEALS));
		R(fchmod(f, 0600));
		R(fchmod(f, 0700));
		char path[40];
		sprintf(path, "/proc/self/fd/%d", f);
		R(chmod(path, 0100));
		R(chmod(path, 0200));
		fstat(f, &st);
		P("mode %o seals %x", st.st_mode, fcntl(f, F_GET_SEALS));
	}
}
