// The storage account, reached with identities alone, and everything in it that the code names.
// A queue trigger does not create its queue, so all of them are made here; tests compare the lists with the code.

@minLength(3)
@maxLength(24)
@description('Name of the account.')
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Redundancy.')
param sku 'Standard_LRS' | 'Standard_ZRS' | 'Standard_GRS' | 'Standard_GZRS'

@description('Reachable through private endpoints alone.')
param isPrivate bool

@description('The workspace for diagnostics.')
param workspaceId string

@description('Send the logs of every read, write and delete to the workspace.')
param logs bool

var packageContainerName = 'packages'
var containerNames = [
  packageContainerName
  'bodies'
]
var queueNames = [
  'outbox'
  'outbox-poison'
  'mailboxes'
  'mailboxes-poison'
  'webhooks'
  'webhooks-poison'
  'notifications'
  'notifications-poison'
]
var tableNames = [
  'accounts'
  'links'
  'credentials'
  'oauth2apps'
  'tokens'
  'settings'
  'pending'
  'nonces'
  'schedule'
  'outbox'
  'events'
  'counters'
  'trees'
  'cursors'
  'markers'
  'poison'
  'endpoints'
  'undelivered'
  'idempotency'
  'lanes'
  'drafts'
  'blocklists'
  'tokenuse'
  'stats'
  'accountlogs'
  'changefeed'
  'templates'
  'exports'
]
var logged = [
  {
    categoryGroup: 'allLogs'
    enabled: true
  }
]

resource account 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: sku
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    isLocalUserEnabled: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: isPrivate ? 'Deny' : 'Allow'
      bypass: isPrivate ? 'None' : 'AzureServices'
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: {
      enabled: true
      days: 7
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 7
    }
  }
}

resource containers 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = [
  for container in containerNames: {
    parent: blobs
    name: container
    properties: {
      publicAccess: 'None'
    }
  }
]

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2025-06-01' = {
  parent: account
  name: 'default'
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-06-01' = [
  for queue in queueNames: {
    parent: queueService
    name: queue
  }
]

resource tableService 'Microsoft.Storage/storageAccounts/tableServices@2025-06-01' = {
  parent: account
  name: 'default'
}

resource tables 'Microsoft.Storage/storageAccounts/tableServices/tables@2025-06-01' = [
  for table in tableNames: {
    parent: tableService
    name: table
  }
]

resource blobLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (logs) {
  scope: blobs
  name: 'workspace'
  properties: {
    workspaceId: workspaceId
    logs: logged
  }
}

resource queueLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (logs) {
  scope: queueService
  name: 'workspace'
  properties: {
    workspaceId: workspaceId
    logs: logged
  }
}

resource tableLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (logs) {
  scope: tableService
  name: 'workspace'
  properties: {
    workspaceId: workspaceId
    logs: logged
  }
}

@description('Resource id.')
output id string = account.id

@description('Name of the account.')
output name string = account.name

@description('URL of the blob service.')
output blobEndpoint string = account.properties.primaryEndpoints.blob

@description('URL of the queue service.')
output queueEndpoint string = account.properties.primaryEndpoints.queue

@description('URL of the table service.')
output tableEndpoint string = account.properties.primaryEndpoints.table

@description('The container of the deployed package.')
output packageContainer string = packageContainerName
