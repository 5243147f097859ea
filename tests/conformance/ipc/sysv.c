// System V shared memory, semaphores and message queues: keys, permissions, limits, errors, removal under waiters, undo.
// users: root ordinary
#include "conf.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
union semun { int val; struct semid_ds *buf; unsigned short *array; struct seminfo *info; };

static void shms(void) {
	struct shmid_ds d;
	int a, b;
	char *p, *q;
	V(shmget(1, 0, IPC_CREAT | 0600)), V(shmget(1, 100, 0600)), V((a = shmget(1, 100, IPC_CREAT | IPC_EXCL | 0640)) >= 0), V(shmget(1, 100, IPC_CREAT | IPC_EXCL | 0600)), V(shmget(1, 100, 0) == a), V(shmget(1, 0, 0) == a), V(shmget(1, 101, 0)), V(shmget(1, 5000, 0)), V(shmget(2, 1UL << 60, IPC_CREAT | 0600)), V(shmget(2, -1, IPC_CREAT | 0600)), V(shmctl(a, IPC_STAT, &d)), P("size %zu mode %o key %d nattch %ld cpid %d lpid %d atime %ld", d.shm_segsz, d.shm_perm.mode, d.shm_perm.__key, (long)d.shm_nattch, d.shm_cpid == getpid(), d.shm_lpid, (long)d.shm_atime);
	V((p = shmat(a, 0, 0)) != (void *)-1), *p = 7, V((q = shmat(a, 0, SHM_RDONLY)) != (void *)-1), P("%d", *q), V(shmctl(a, IPC_STAT, &d)), P("nattch %ld", (long)d.shm_nattch), V((long)shmat(a, p + 1, 0)), V((long)shmat(a, p, 0)), V(shmat(a, p, SHM_REMAP) == p), V(shmat(a, q + 5000, SHM_RND) != (void *)-1), V((long)shmat(99999, 0, 0)), V((long)shmat(-1, 0, 0)), V((long)shmat(a, 0, SHM_REMAP)), V(shmdt(p)), V(shmdt(p)), V(shmdt(BAD)), V(shmdt(q)), V(shmdt(0));
	P("over fork: %s", wait_for(CHILD(shmctl(a, IPC_STAT, &d); P("nattch %ld", (long)d.shm_nattch))));
	d.shm_perm.mode = 0400, V(shmctl(a, IPC_SET, &d)), V(shmctl(a, IPC_STAT, &d)), P("mode %o", d.shm_perm.mode), V((long)shmat(a, 0, 0) == -1 ? errno == EACCES : 0), V(shmctl(a, 99, &d)), V(shmctl(-1, IPC_STAT, &d)), V(shmctl(a, IPC_STAT, BAD)), V(shmctl(a, IPC_SET, BAD)), V(shmctl(a, SHM_LOCK, 0)), V(shmctl(a, SHM_UNLOCK, 0));
	struct shminfo si;
	struct shm_info inf;
	V(shmctl(0, IPC_INFO, (void *)&si) >= 0), P("max %lx min %lu", si.shmmax, si.shmmin), V(shmctl(0, SHM_INFO, (void *)&inf) >= 0), P("used %d", inf.used_ids), V(shmctl(0, SHM_STAT, &d) >= 0);
	p = shmat(a, 0, SHM_RDONLY), V(shmctl(a, IPC_RMID, 0)), V(shmctl(a, IPC_STAT, &d)), P("mode %o key %d", d.shm_perm.mode, d.shm_perm.__key), V((long)shmat(a, 0, SHM_RDONLY) == -1), V(shmget(1, 100, 0)), V(shmdt(p)), V(shmctl(a, IPC_STAT, &d)), V(shmctl(a, IPC_RMID, 0));
	b = shmget(IPC_PRIVATE, 4096, 0600), V(b >= 0), p = shmat(b, 0, 0), V(shmctl(b, IPC_RMID, 0)), P("%s", wait_for(CHILD(*p = 9))), P("shared over fork %d", *p), R(mprotect(p, 4096, 1)), R(mremap(p, 4096, 8192, MREMAP_MAYMOVE)), R(munmap(p, 4096)), V(shmctl(b, IPC_STAT, &d));
}

static void sems(void) {
	struct semid_ds d;
	union semun u = {.buf = &d};
	int s;
	V(semget(1, 0, IPC_CREAT | 0600)), V(semget(1, -1, IPC_CREAT | 0600)), V(semget(1, 100000, IPC_CREAT | 0600)), V(semget(1, 1, 0600)), V((s = semget(1, 3, IPC_CREAT | 0600)) >= 0), V(semget(1, 4, 0)), V(semget(1, 0, 0) == s), V(semget(1, 3, IPC_CREAT | IPC_EXCL)), V(semctl(s, 0, IPC_STAT, u)), P("nsems %ld otime %ld mode %o", (long)d.sem_nsems, (long)d.sem_otime, d.sem_perm.mode), u.val = 5, V(semctl(s, 0, SETVAL, u)), V(semctl(s, 0, GETVAL)), V(semctl(s, 0, GETPID) == getpid()), V(semctl(s, 0, GETNCNT)), V(semctl(s, 0, GETZCNT)), u.val = -1, V(semctl(s, 0, SETVAL, u)), u.val = 32768, V(semctl(s, 0, SETVAL, u)), V(semctl(s, 3, GETVAL)), V(semctl(s, -1, GETVAL)), V(semctl(99999, 0, GETVAL)), V(semctl(-1, 0, GETVAL)), V(semctl(s, 0, 99));
}
static void sems2(void) {
	union semun u;
	unsigned short v[3] = {1, 2, 3};
	int s = semget(IPC_PRIVATE, 3, 0600);
	u.array = v, V(semctl(s, 0, SETALL, u)), v[0] = v[1] = v[2] = 0, V(semctl(s, 0, GETALL, u)), P("%d %d %d", v[0], v[1], v[2]), v[1] = 40000, V(semctl(s, 0, SETALL, u)), u.array = BAD, V(semctl(s, 0, GETALL, u)), V(semctl(s, 0, SETALL, u));
	struct sembuf o[4] = {{0, -1, IPC_NOWAIT}, {1, -2, IPC_NOWAIT}, {2, 0, IPC_NOWAIT}, {0, 1, 0}};
	V(semop(s, o, 1)), V(semop(s, o, 1)), V(semop(s, o + 1, 2)), V(semctl(s, 1, GETVAL)), V(semop(s, o, 0)), V(semop(s, o, 501)), V(semop(s, BAD, 1)), V(semop(-1, o, 1)), o[0].sem_num = 9, V(semop(s, o, 1)), o[0].sem_num = 0, o[0].sem_op = 32767, V(semop(s, o, 1)), o[0].sem_op = 1, V(semop(s, o, 1)), V(semtimedop(s, o + 1, 1, &(struct timespec){0, 0})), o[1].sem_flg = 0, o[1].sem_op = -3, V(semtimedop(s, o + 1, 1, &(struct timespec){0, 10000000})), V(semtimedop(s, o + 1, 1, &(struct timespec){0, -1})), V(semtimedop(s, o + 1, 1, &(struct timespec){-1, 0})), V(semtimedop(s, o + 1, 1, BAD));
	H("waiters");
	u.val = 0, semctl(s, 0, SETVAL, u);
	int st;
	pid_t p = CHILD(struct sembuf w = {0, -1, 0}; V(semop(s, &w, 1)); V(semop(s, &w, 1)));
	while (semctl(s, 0, GETNCNT) != 1)
		sleep_ms(1);
	u.val = 1, semctl(s, 0, SETVAL, u);
	while (semctl(s, 0, GETNCNT) != 1)
		sleep_ms(1);
	semctl(s, 0, IPC_RMID), P("%s", wait_for(p)), V(semctl(s, 0, GETVAL)), V(semop(s, o, 1));
	s = semget(IPC_PRIVATE, 1, 0600);
	P("undo: %s", wait_for(CHILD(struct sembuf w = {0, 5, SEM_UNDO}; semop(s, &w, 1); P("%d", semctl(s, 0, GETVAL)); struct sembuf x = {0, -2, SEM_UNDO}; semop(s, &x, 1); P("%d", semctl(s, 0, GETVAL))))), V(semctl(s, 0, GETVAL)), catch(SIGALRM, SA_RESTART), ualarm(20000, 0);
	struct sembuf w = {0, -1, 0};
	V(semop(s, &w, 1));
	p = CHILD(struct sembuf z = {0, 0, 0}; u.val = 1; semctl(s, 0, SETVAL, u); V(semop(s, &z, 1)));
	while (semctl(s, 0, GETZCNT) != 1)
		sleep_ms(1);
	w.sem_op = -1, semop(s, &w, 1), P("%s", wait_for(p)), V(semctl(s, 0, GETVAL));
}

static void msgs(void) {
	struct { long t; char d[9000]; } m = {1, "hello"};
	struct msqid_ds d;
	int q;
	V(msgget(1, 0600)), V((q = msgget(1, IPC_CREAT | 0600)) >= 0), V(msgget(1, IPC_CREAT | IPC_EXCL)), V(msgsnd(q, &m, 5, 0)), m.t = 2, V(msgsnd(q, &m, 6, 0)), m.t = 3, V(msgsnd(q, &m, 0, 0)), m.t = 0, V(msgsnd(q, &m, 5, 0)), m.t = -1, V(msgsnd(q, &m, 5, 0)), m.t = 1, V(msgsnd(q, &m, -1, 0)), V(msgsnd(q, &m, 8193, 0)), V(msgsnd(q, BAD, 5, 0)), V(msgsnd(-1, &m, 5, 0)), V(msgctl(q, IPC_STAT, &d)), P("num %ld bytes %ld max %ld lspid %d", (long)d.msg_qnum, (long)d.__msg_cbytes, (long)d.msg_qbytes, d.msg_lspid == getpid());
	V(msgrcv(q, &m, 4, 0, IPC_NOWAIT)), V(msgrcv(q, &m, 4, 0, MSG_NOERROR)), V(msgrcv(q, &m, 100, 3, 0)), V(msgrcv(q, &m, 100, 5, IPC_NOWAIT)), V(msgrcv(q, &m, 100, -5, IPC_NOWAIT)), P("type %ld", m.t), V(msgrcv(q, &m, 100, 0, IPC_NOWAIT)), V(msgrcv(q, &m, -1, 0, IPC_NOWAIT)), V(msgrcv(-1, &m, 1, 0, 0)), V(msgrcv(q, BAD, 1, 0, IPC_NOWAIT));
	for (int i = 5; i > 0; i--)
		m.t = i, msgsnd(q, &m, i, 0);
	V(msgrcv(q, &m, 100, 3, MSG_EXCEPT | IPC_NOWAIT)), P("type %ld", m.t), V(msgrcv(q, &m, 100, -3, 0)), P("type %ld", m.t), V(msgrcv(q, &m, 100, LONG_MIN, 0)), P("type %ld", m.t), V(msgrcv(q, &m, 100, 0, MSG_COPY | IPC_NOWAIT)), P("type %ld", m.t), V(msgrcv(q, &m, 100, 1, MSG_COPY | IPC_NOWAIT)), P("type %ld", m.t), V(msgrcv(q, &m, 100, 7, MSG_COPY | IPC_NOWAIT)), V(msgrcv(q, &m, 100, 0, MSG_COPY)), V(msgrcv(q, &m, 100, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT)), V(msgrcv(q, &m, 1, 0, MSG_COPY | IPC_NOWAIT)), V(msgctl(q, IPC_STAT, &d)), P("num %ld", (long)d.msg_qnum);
	int n = 0;
	m.t = 1;
	while (msgsnd(q, &m, 1000, IPC_NOWAIT) == 0)
		n++;
	P("%d of 1000 bytes: %s", n, conf_errno(errno)), V(msgsnd(q, &m, 8192, IPC_NOWAIT)), d.msg_qbytes = 100, V(msgctl(q, IPC_SET, &d)), d.msg_qbytes = 1 << 20, V(msgctl(q, IPC_SET, &d)), V(msgctl(q, 99, &d)), V(msgctl(q, IPC_STAT, BAD)), V(msgctl(-1, IPC_STAT, &d));
	struct msginfo mi;
	V(msgctl(0, IPC_INFO, (void *)&mi) >= 0), P("max %d mnb %d mni %d", mi.msgmax, mi.msgmnb, mi.msgmni), V(msgctl(0, MSG_INFO, (void *)&mi) >= 0), P("queues %d", mi.msgpool), V(msgctl(q, MSG_STAT, &d) >= 0 || errno == EINVAL);
	while (msgrcv(q, &m, 9000, 0, IPC_NOWAIT) >= 0)
		;
	pid_t p = CHILD(V(msgrcv(q, &m, 100, 0, 0)); V(msgrcv(q, &m, 100, 0, 0)));
	sleep_ms(20), msgsnd(q, &m, 3, 0), sleep_ms(50), msgctl(q, IPC_RMID, 0), P("%s", wait_for(p)), V(msgsnd(q, &m, 3, 0));
	P("%s", *slurp("/proc/sys/kernel/msgmax") ? "msgmax" : "");
}

static void others(void) {
	if (getuid())
		return;
	int s = shmget(IPC_PRIVATE, 100, 0600), m = msgget(IPC_PRIVATE, 0622), e = semget(77, 1, IPC_CREAT | 0644);
	struct shmid_ds d;
	struct { long t; char c[8]; } b = {1};
	struct sembuf o = {0, 1, 0};
	setresgid(9, 9, 9), setresuid(9, 9, 9);
	V((long)shmat(s, 0, 0)), V((long)shmat(s, 0, SHM_RDONLY)), V(shmctl(s, IPC_STAT, &d)), V(shmctl(s, IPC_SET, &d)), V(shmctl(s, IPC_RMID, 0)), V(msgsnd(m, &b, 1, 0)), V(msgrcv(m, &b, 1, 0, 0)), V(msgctl(m, IPC_RMID, 0)), V(semop(e, &o, 1)), V(semctl(e, 0, GETVAL)), V(semctl(e, 0, SETVAL, 1)), V(semget(77, 1, 0666)), V(semget(77, 1, 0444) == e), o.sem_op = 0, V(semop(e, &o, 1));
}
int main(void) { sub(shms), sub(sems), sub(sems2), sub(msgs), sub(others); }
