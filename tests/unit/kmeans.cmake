vqmoe_test(kmeans unit/kmeans_test.c moe)
