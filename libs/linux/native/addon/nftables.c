#include "job.h"

#include <errno.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>

/* (commands): runs nft(8) commands in one transaction and gives back what they print (JSON where number is 1). */
void nftables_run(struct job *job) {
    struct nft_ctx *context = nft_ctx_new(NFT_CTX_DEFAULT);
    if (context == NULL) {
        job_fail(job, ENOMEM, "nftables");
        return;
    }
    nft_ctx_buffer_output(context);
    nft_ctx_buffer_error(context);
    if (job->number == 1)
        nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON);
    if (nft_run_cmd_from_buffer(context, job->strings[0]) != 0) {
        const char *reason = nft_ctx_get_error_buffer(context);
        bool missing = strstr(reason, "No such file or directory") != NULL;
        job_fail(job, 0, "nftables: %s", reason);
        job->error = missing ? ENOENT : EINVAL;
    } else {
        const char *text = nft_ctx_get_output_buffer(context);
        job->output_length = strlen(text);
        job->output = (uint8_t *)strdup(text);
    }
    nft_ctx_free(context);
}
