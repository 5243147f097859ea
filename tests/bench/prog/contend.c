/* contend has 200 threads take one lock in turn, 100,000 times in all. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static volatile long n;

static void *work(void *a)
{
	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&m);
		for (int k = 0; k < 200; k++)
			n++;
		pthread_mutex_unlock(&m);
		if (i % 10 == 0)
			sched_yield();
	}
	return a;
}

int main(void)
{
	pthread_t t[200];
	for (int i = 0; i < 200; i++)
		pthread_create(&t[i], 0, work, 0);
	for (int i = 0; i < 200; i++)
		pthread_join(t[i], 0);
	printf("%ld\n", n);
	return 0;
}
