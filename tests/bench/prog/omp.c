/* omp is a numeric program with a barrier a step, on 8 threads. */
#include <stdio.h>
#include <omp.h>

static double a[1 << 16];

int main(void)
{
	double sum = 0;
	omp_set_num_threads(8);
	for (int step = 0; step < 300; step++) {
#pragma omp parallel for reduction(+ : sum)
		for (int i = 0; i < 1 << 16; i++) {
			a[i] = a[i] * 0.5 + i + step;
			for (int k = 0; k < 200; k++)
				a[i] = a[i] * 0.999 + k;
			sum += a[i];
		}
	}
	printf("%g\n", sum);
	return 0;
}
